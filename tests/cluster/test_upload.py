"""What `det experiment create` uploads of this repository."""

from __future__ import annotations

import base64

from tests.cluster.submission import packed_files

NEEDED = {"LICENSE", "README.md", "pyproject.toml", "src", "startup-hook.sh", "trials"}
LEFT_BEHIND = {"benchmarks", "constraints.txt", "Makefile", "runs", "scripts", "tests"}


def test_the_upload_is_small(context: str) -> None:
    assert len(base64.b64decode(context)) < 2 * 1024 * 1024


def test_the_upload_holds_what_a_task_needs_and_no_more(context: str) -> None:
    files = packed_files(context)
    tops = {file.split("/")[0] for file in files}
    assert tops >= NEEDED
    assert not tops & LEFT_BEHIND
    assert not [file for file in files if file.startswith(".") or "__pycache__" in file]
