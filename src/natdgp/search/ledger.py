"""The memory of a search: every event in its order, in an Optuna study that others can read too."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from natdgp.local.folder import FolderError
from natdgp.search.events import Event, from_plain, to_plain
from natdgp.search.folder import SearchFolder
from natdgp.search.optuna_study import STATES, direction_of, frozen
from natdgp.search.progress import Progress, Trial
from natdgp.settings import Search

_PREFIX = "event-"
_IDENTITY = "search"


class Ledger:
    """An event is written in one transaction of SQLite, so that a kill loses none or the last.

    The trials of the study only mirror the events, for `optuna-dashboard` and the like.
    """

    def __init__(self, folder: SearchFolder, search: Search) -> None:
        """Open the study, or make it.

        :raises FolderError: if the folder has the study of another search.
        """
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
        self._events = len(self.events())

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
        self._study.set_user_attr(f"{_PREFIX}{self._events:09d}", to_plain(event))
        self._events += 1

    def mirror(self, progress: Progress) -> None:
        """Bring the study's trials to where the search stands."""
        known = self._storage.get_all_trials(self._study._study_id, deepcopy=False)
        for trial in progress.trials[len(known) :]:
            self._storage.create_new_trial(
                self._study._study_id, frozen(progress, trial, TrialState.RUNNING)
            )
        for trial, mirrored in zip(progress.trials, self._study.trials, strict=True):
            if mirrored.state is TrialState.RUNNING:
                self._update(progress, trial, mirrored)

    def _update(self, progress: Progress, trial: Trial, mirrored: optuna.trial.FrozenTrial) -> None:
        for steps in trial.values.keys() - mirrored.intermediate_values.keys():
            self._storage.set_trial_intermediate_value(
                mirrored._trial_id, steps, trial.values[steps]
            )
        if trial.ending is not None:
            now = frozen(progress, trial, STATES[trial.ending])
            values = None if now.value is None else [now.value]
            if trial.reason:
                self._storage.set_trial_user_attr(mirrored._trial_id, "reason", trial.reason)
            self._storage.set_trial_state_values(mirrored._trial_id, now.state, values)


def _identity_of(search: Search) -> str:
    """A fingerprint of all that gives its events their meaning."""
    config = search.config
    terms = [config["name"], config["searcher"], config["hyperparameters"], search.seed]
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
