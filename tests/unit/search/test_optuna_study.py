"""The study that others can read, and the page."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from natdgp.run.durable_files import NotSaved
from natdgp.search.optuna_study import write_page, write_study
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import ended, validated
from natdgp.settings import Search
from tests.conftest import fill
from tests.unit.search.conftest import EVENTS, RANDOM, Write, state_after


def _study(folder: SearchFolder) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder.database}")


def test_the_study_has_all_trials_with_their_values(folder: SearchFolder, search: Search) -> None:
    write_study(folder, state_after(search, EVENTS[:4]))
    study = _study(folder)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, *[TrialState.RUNNING] * 3]
    assert study.trials[2].intermediate_values == {2: 1.25}

    state = state_after(search, EVENTS)
    write_study(folder, state)
    study = _study(folder)
    assert study.study_name == "waves"
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert study.trials[0].intermediate_values == {2: 3.5, 6: 3.75}
    assert (study.trials[0].value, study.best_value) == (3.5, 1.0)
    assert study.trials[1].user_attrs == {"reason": "gamma is too long"}
    gamma = state.trials[2].point["natural_gradient"]["gamma"]
    assert study.trials[2].params["natural_gradient.gamma"] == gamma


def test_a_stopped_trial_counts_as_pruned_and_larger_may_be_better(
    folder: SearchFolder, search_of: Write
) -> None:
    searcher = {**RANDOM, "metric": "val_elbo_per_datum", "smaller_is_better": False}
    events = (validated(0, 2, 2, 0.5), ended(0, TrialEnding.STOPPED))
    write_study(folder, state_after(search_of(searcher=searcher), events))
    study = _study(folder)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.PRUNED, 0.5)


def test_a_disk_that_refuses_leaves_the_former_study(search: Search, small_disk: Path) -> None:
    folder = SearchFolder.create(small_disk / "mine")
    write_study(folder, state_after(search, EVENTS[:3]))
    fill(small_disk, free=8192)
    with pytest.raises(NotSaved, match=r"search\.db cannot be written: "):
        write_study(folder, state_after(search, EVENTS))
    (small_disk / "ballast").unlink()
    assert len(_study(folder).trials) == 4
    assert len(list(folder.root.iterdir())) == 3


def test_the_page_has_every_plot_and_needs_no_network(folder: SearchFolder, search: Search) -> None:
    write_page(folder, state_after(search, EVENTS))
    page = folder.page.read_text(encoding="utf-8")
    for title in ("History", "Rungs", "Importances", "Parallel coordinates"):
        assert page.count(f"<h2>{title}: ") == 1
    assert page.count("Plotly.newPlot(") == 4
    assert "<script src=" not in page
    assert "<link" not in page


def test_of_one_value_there_is_nothing_to_plot(folder: SearchFolder, search: Search) -> None:
    write_page(folder, state_after(search, EVENTS[:3]))
    page = folder.page.read_text(encoding="utf-8")
    assert "Plots need two trials" in page
    assert "Plotly" not in page
