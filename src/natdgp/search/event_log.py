"""The memory of a search: every event in its order, from which its state is replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natdgp.data.table import DataError
from natdgp.run.durable_files import append_line, write_whole
from natdgp.run.run_folder import FolderError, read_json_lines
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_state import Event, SearchState
from natdgp.settings import Search


class EventLog:
    """`events.jsonl`: a line that says of which search and data, then an event a line."""

    def __init__(self, folder: SearchFolder, search: Search) -> None:
        """Open the log and replay it, or begin it; a last line that a kill cut short is dropped.

        :raises FolderError: if it is of another search or of other data, or damaged.
        :raises DataError: if the data cannot be read.
        :raises NotSaved: if it cannot be begun.
        """
        self.state = SearchState(search)
        """The search after the last event."""
        self._path = folder.events
        data = fingerprint_of(search.config["data"])
        self._header = {"search": _identity_of(search), "data": data}
        try:
            header, *entries = list(read_json_lines(self._path)) or [self._header]
            same = header["search"] == self._header["search"]
            for entry in entries if same else ():
                self.state.take(entry)
        except (LookupError, TypeError, ValueError) as error:
            raise FolderError(
                f"{folder.shown / self._path.name} cannot be read ({error!r}); move it away, and "
                "the search goes on by what its trials have saved"
            ) from error
        if not same:
            raise FolderError(
                f"{folder.shown / self._path.name} remembers another search than that of "
                f"{folder.config.name} beside it: name, searcher, hyperparameters or seed differ; "
                "put back the file that belongs to it, or start a new search with --out"
            )
        self._header = header
        self.check_data()
        lines = (json.dumps(entry) + "\n" for entry in (header, *entries))
        write_whole(self._path, "".join(lines))

    def take(self, event: Event) -> None:
        """Have an event on disk, then in the state.

        :raises NotSaved: if the disk refuses.
        """
        append_line(self._path, json.dumps(event))
        self.state.take(event)

    def check_data(self) -> None:
        """Make sure that trials yet to come see the data that those before them saw.

        :raises FolderError: if they changed.
        :raises DataError: if they cannot be read.
        """
        if fingerprint_of(self.state.search.config["data"]) != self._header["data"]:
            raise FolderError(
                "the data changed since the search began, so that its trials could not be "
                "compared; bring the former data back, or start a new search with --out"
            )


def _identity_of(search: Search) -> str:
    """A fingerprint of all that gives its events their meaning."""
    config = search.config
    terms = [config["name"], config["searcher"], config["hyperparameters"], search.seed]
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()


def fingerprint_of(data: Mapping[str, Any]) -> str:
    """Of the section `data`, and of the file that it names, if it does.

    :raises DataError: if that file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    if "path" in data:
        try:
            with Path(data["path"]).open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            message = f"data.path: {data['path']} cannot be read: {error.strerror}"
            raise DataError(message) from error
    return digest.hexdigest()
