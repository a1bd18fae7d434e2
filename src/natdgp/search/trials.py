"""A trial of a search as an experiment of its own, in a run's folder of its own."""

from __future__ import annotations

import shutil
from typing import Any

from natdgp.run.run_folder import RunFolder
from natdgp.run.run_session import new_run
from natdgp.search.progress import Trial
from natdgp.search.search_folder import SearchFolder
from natdgp.settings import Experiment, Search
from natdgp.settings.schema import Settings


def experiment_of(search: Search, trial: Trial) -> Experiment:
    """What `natdgp train` would be given to train this trial alone, to its full length.

    :raises SettingsError: if its hyperparameters are invalid.
    """
    config, searcher = search.config, search.searcher
    single: dict[str, Any] = {
        "name": "single",
        "metric": searcher.metric,
        "smaller_is_better": searcher.smaller_is_better,
        "max_length": searcher.max_length.model_dump(exclude_none=True),
    }
    return Experiment(
        {
            **config,
            "name": f"{config['name']}-trial-{trial.number:04d}",
            "searcher": single,
            "hyperparameters": trial.point,
            "reproducibility": {"experiment_seed": trial.seed},
        },
        Settings.read(trial.point, config["data"]),
    )


def run_folder_of(search: Search, folder: SearchFolder, trial: Trial) -> RunFolder:
    """The folder of a trial's run, made if it is not there.

    :raises SettingsError: if its hyperparameters are invalid.
    """
    root = folder.trial(trial.number)
    if (run := RunFolder(root)).config.is_file():
        return run
    shutil.rmtree(root, ignore_errors=True)  # left by a search that was killed while making it
    return new_run(experiment_of(search, trial), folder.code, root)
