"""Exit statuses of the command."""

from __future__ import annotations

FAILED = 1
"""A run, a search or a check failed."""

MISUSED = 2
"""The request itself was wrong: files, fields, folders."""

REFUSED = 113
"""From a trial of a search to the search alone: the request itself was wrong. No status that a
trial's own code is likely to exit with."""

SIGNALLED = 128
"""Added to a signal's number after an interruption, as shells have it."""

INTERRUPTED = SIGNALLED + 2
"""After Ctrl-C."""
