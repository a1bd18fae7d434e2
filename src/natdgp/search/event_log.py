"""The memory of a search: every event in its order, in an Optuna study that others can read too."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from natdgp.run.durable_files import NotSaved
from natdgp.run.run_folder import FolderError
from natdgp.search.data import fingerprint_of
from natdgp.search.events import Event, Validated, from_plain, to_plain
from natdgp.search.optuna_study import STATES, direction_of, frozen
from natdgp.search.progress import Progress, Trial
from natdgp.search.search_folder import SearchFolder
from natdgp.settings import Search

_PREFIX = "event-"
_IDENTITY = "search"
_DATA = "data"


class Ledger:
    """An event is written in one transaction of SQLite, so that a kill loses none or the last.

    The trials of the study only mirror the events, for `optuna-dashboard` and the like.
    """

    def __init__(self, folder: SearchFolder, search: Search) -> None:
        """Open the study, or make it.

        :raises FolderError: if the folder has the study of another search, or a damaged one.
        :raises NotSaved: if it cannot be made.
        """
        self._folder, self._search = folder, search
        self._ids: list[int] = []
        existed = folder.database.exists()
        try:
            with self._writing():
                self._open()
                self._events = len(self.events())
        except NotSaved as error:
            if not existed:
                raise
            raise FolderError(
                f"{folder.shown / folder.database.name} cannot be read ({error.__cause__}); move "
                "it away, and the search goes on by what its trials have saved"
            ) from error

    def _open(self) -> None:
        folder, search = self._folder, self._search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A URL gives a meaning of their own to ?, % and braces, which a folder's name may have.
        self._storage = RDBStorage(
            "sqlite:///search.db", {"creator": lambda: sqlite3.connect(folder.database)}
        )
        names = optuna.get_all_study_names(self._storage) or [search.config["name"]]
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=names[0],
            direction=direction_of(search),
            load_if_exists=True,
        )
        identity = self._study.user_attrs.get(_IDENTITY)
        if identity is None:
            self._study.set_user_attr(_IDENTITY, _identity_of(search))
        elif identity != _identity_of(search):
            self.close()
            raise FolderError(
                f"{folder.shown / folder.database.name} remembers another search than that of "
                f"{folder.config.name} beside it: name, searcher, hyperparameters or seed differ; "
                "put back the file that belongs to it, or start a new search with --out"
            )

    def same_data(self) -> None:
        """Make sure that trials yet to come see the data that those before them saw.

        :raises FolderError: if they changed.
        :raises DataError: if they cannot be read.
        """
        now = fingerprint_of(self._search.config["data"])
        with self._writing():
            known = self._study.user_attrs.get(_DATA)
            if known is None:
                self._study.set_user_attr(_DATA, now)
            elif known != now:
                raise FolderError(
                    "the data changed since the search began, so that its trials could not be "
                    "compared; bring the former data back, or start a new search with --out"
                )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """:raises NotSaved: for what SQLite says against it."""
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            reason = getattr(cause, "orig", None) or error  # SQLite's own words, if there are any
            raise NotSaved(f"{self._folder.database} cannot be written: {reason}") from reason

    def events(self) -> list[Event]:
        """All events, in their order."""
        attributes = self._study.user_attrs
        return [from_plain(attributes[k]) for k in sorted(attributes) if k.startswith(_PREFIX)]

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def record(self, event: Event) -> None:
        """Add an event, and have it on disk when this returns."""
        with self._writing():
            self._study.set_user_attr(f"{_PREFIX}{self._events:09d}", to_plain(event))
        self._events += 1

    def mirror(self, progress: Progress) -> None:
        """Bring the study's trials to where the search stands, e.g. after a kill."""
        with self._writing():
            known = self._storage.get_all_trials(self._study._study_id, deepcopy=False)
            self._ids = [trial._trial_id for trial in known]
            self._create(progress)
            for trial, mirrored in zip(progress.trials, known, strict=False):
                if not mirrored.state.is_finished():
                    for steps in trial.values.keys() - mirrored.intermediate_values.keys():
                        self._validate(trial, steps)
            finished = {trial.number for trial in known if trial.state.is_finished()}
            for trial in progress.trials:
                if trial.ending is not None and trial.number not in finished:
                    self._end(progress, trial)

    def follow(self, progress: Progress, event: Event) -> None:
        """Have an event that the search has taken in the study's trials, which were mirrored."""
        with self._writing():
            self._create(progress)
            trial = progress.trials[event.trial]
            if isinstance(event, Validated):
                self._validate(trial, event.steps)
            else:
                self._end(progress, trial)

    def _create(self, progress: Progress) -> None:
        """Trials that are new; of one in the middle, with what it has reported."""
        for trial in progress.trials[len(self._ids) :]:
            running = frozen(progress, trial, TrialState.RUNNING)
            self._ids.append(self._storage.create_new_trial(self._study._study_id, running))

    def _validate(self, trial: Trial, steps: int) -> None:
        self._storage.set_trial_intermediate_value(
            self._ids[trial.number], steps, trial.values[steps]
        )

    def _end(self, progress: Progress, trial: Trial) -> None:
        mirrored, now = self._ids[trial.number], frozen(progress, trial, STATES[trial.ending])
        if trial.reason:
            self._storage.set_trial_user_attr(mirrored, "reason", trial.reason)
        values = None if now.value is None else [now.value]
        self._storage.set_trial_state_values(mirrored, now.state, values)


def _identity_of(search: Search) -> str:
    """A fingerprint of all that gives its events their meaning."""
    config = search.config
    terms = [config["name"], config["searcher"], config["hyperparameters"], search.seed]
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
