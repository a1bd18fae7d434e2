"""The memory of a search: every event in its order, from which its state is replayed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from natdgp.data.table import DataError
from natdgp.run.durable_files import append_line, saving
from natdgp.run.run_folder import FolderError
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import SearchEvent, SearchState, TrialEnded, TrialValidated
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
        self._folder = folder
        lines, expected = self._whole_lines() or [self._begin(search)], _identity_of(search)
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                if number == 0:
                    identity, self._data = entry["search"], entry["data"]
                elif identity == expected:
                    self.state.take(_event_from(entry))
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise FolderError(
                    f"{folder.shown / folder.events.name} cannot be read (line {number + 1}: "
                    f"{error!r}); move it and search.db away, and the search goes on by what its "
                    "trials have saved"
                ) from error
        if identity != expected:
            raise FolderError(
                f"{folder.shown / folder.events.name} remembers another search than that of "
                f"{folder.config.name} beside it: name, searcher, hyperparameters or seed differ; "
                "put back the file that belongs to it, or start a new search with --out"
            )
        self.check_data()

    def _whole_lines(self) -> list[bytes]:
        path = self._folder.events
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with saving(path):
                os.truncate(path, len(whole))
        return whole.splitlines()

    def _begin(self, search: Search) -> bytes:
        folder = self._folder
        if folder.database.exists():
            raise FolderError(
                f"{folder.shown} has a search.db, but no events in {folder.events.name}: an "
                "earlier natdgp searched here, or they were moved away; move search.db away too, "
                "and the search goes on by what its trials have saved"
            )
        data = fingerprint_of(search.config["data"])
        header = json.dumps({"search": _identity_of(search), "data": data})
        append_line(folder.events, header)
        return header.encode()

    def take(self, event: SearchEvent) -> None:
        """Have an event on disk, then in the state.

        :raises NotSaved: if the disk refuses.
        """
        entry = {"event": _KINDS[type(event)], **asdict(event)}
        append_line(self._folder.events, json.dumps(entry))
        self.state.take(event)

    def check_data(self) -> None:
        """Make sure that trials yet to come see the data that those before them saw.

        :raises FolderError: if they changed.
        :raises DataError: if they cannot be read.
        """
        if fingerprint_of(self.state.search.config["data"]) != self._data:
            raise FolderError(
                "the data changed since the search began, so that its trials could not be "
                "compared; bring the former data back, or start a new search with --out"
            )


_KINDS = {TrialValidated: "validated", TrialEnded: "ended"}


def _event_from(entry: dict[str, Any]) -> SearchEvent:
    if entry.pop("event") == "validated":
        return TrialValidated(**entry)
    return TrialEnded(entry["trial"], TrialEnding(entry["ending"]), entry["reason"])


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
