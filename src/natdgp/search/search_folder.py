"""The folder of a search: what lies where."""

from __future__ import annotations

from pathlib import Path

from natdgp.run.process_lock import LOCK
from natdgp.run.run_folder import SEARCH_CONFIG, FolderError, claim, shown


class SearchFolder:
    """Everything that a search writes lies under one folder, each trial's run under `trials/`."""

    def __init__(self, root: Path) -> None:
        """:param root: absolute, because trials work in other directories than the search."""
        self.root = root
        self.config = root / SEARCH_CONFIG  # ready for `natdgp search`
        self.code = root / "code"
        self.events = root / "events.jsonl"  # by which the search is resumed
        self.database = root / "search.db"
        self.leaderboard = root / "leaderboard.csv"
        self.page = root / "search.html"
        self.best_config = root / "best.yaml"  # ready for `natdgp train`
        self.best = root / "best"  # a link to the best checkpoint of the best trial
        self.lock = root / LOCK  # held by the one process that searches

    @classmethod
    def create(cls, root: Path) -> SearchFolder:
        """Claim a new folder.

        :raises FolderError: if it is taken or cannot be made.
        """
        return cls(claim(root, ("code", "trials")))

    @classmethod
    def open(cls, root: Path) -> SearchFolder:
        """Open the folder of an earlier search.

        :raises FolderError: if it is not one.
        """
        if not (root / SEARCH_CONFIG).is_file():
            raise FolderError(f"{root} is not the folder of a search: it has no {SEARCH_CONFIG}")
        return cls(root.resolve())

    @property
    def shown(self) -> Path:
        """The root as a user in the current directory would write it."""
        return shown(self.root)

    def trial(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.root / "trials" / f"trial-{number:04d}"
