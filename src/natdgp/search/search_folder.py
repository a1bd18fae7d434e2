"""The folder of a search: what lies where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natdgp.run.run_folder import (
    SEARCH_CONFIG,
    FolderError,
    claim,
    next_free,
    shown,
    write_yaml,
)

PATIENCE = 10.0
"""Seconds for which the trials of a search that was killed may take to end."""


@dataclass(frozen=True)
class SearchFolder:
    """Everything that a search writes lies under one folder, each trial's run under `trials/`."""

    root: Path
    """Absolute, because trials work in other directories than the search."""

    @classmethod
    def create(cls, out: Path | None, name: str) -> SearchFolder:
        """Claim a new folder: `out`, or the first free one of that name under `runs/`.

        :raises FolderError: if it is taken or cannot be made.
        """
        return cls(claim(out or next_free(Path("runs"), name), ("code", "trials")))

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

    @property
    def config(self) -> Path:
        """The experiment configuration that is searched, itself ready for `natdgp search`."""
        return self.root / SEARCH_CONFIG

    @property
    def database(self) -> Path:
        """All that happened, an Optuna study in SQLite."""
        return self.root / "search.db"

    @property
    def code(self) -> Path:
        """The trial definition that runs."""
        return self.root / "code"

    def trial(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.root / "trials" / f"trial-{number:04d}"

    @property
    def leaderboard(self) -> Path:
        """All trials, the best first."""
        return self.root / "leaderboard.csv"

    @property
    def best_config(self) -> Path:
        """The best trial's configuration, ready for `natdgp train`."""
        return self.root / "best.yaml"

    @property
    def best(self) -> Path:
        """A link to the best checkpoint of the best trial."""
        return self.root / "best"

    @property
    def page(self) -> Path:
        """The plots."""
        return self.root / "search.html"

    @property
    def lock(self) -> Path:
        """Held by the one process that searches here."""
        return self.root / "lock"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, which makes this the folder of a search."""
        write_yaml(self.config, config)
