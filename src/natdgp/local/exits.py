"""Exit statuses of the command."""

from __future__ import annotations

FAILED = 1
"""A run, a search or a check failed."""

MISUSED = 2
"""The request itself was wrong: files, fields, folders."""

SIGNALLED = 128
"""Added to a signal's number after an interruption, as shells have it."""

INTERRUPTED = SIGNALLED + 2
"""After Ctrl-C."""
