from __future__ import annotations

import io

import pytest
from rich.console import Console

from natdgp.search.cost import cost_of
from natdgp.search.decisions import Ending
from natdgp.search.events import Ended, Validated
from natdgp.search.progress import Progress
from natdgp.search.search_display import SearchDisplay
from natdgp.search.wording import columns_of, time_in_words
from natdgp.settings import read_search
from tests.conftest import REPOSITORY
from tests.unit.search.conftest import RANDOM, Write


def _console(*, terminal: bool, width: int = 160) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=width, color_system=None), screen


def test_lines_tell_of_each_trial_and_the_best_so_far(search_of: Write) -> None:
    search = search_of()
    progress, (console, screen) = Progress(search), _console(terminal=False)
    display = SearchDisplay(console, cost_of(search), progress, live=False)
    with display:
        display.begun(progress, progress.trials[0])
        assert display.time_left(progress) == "known after the first trial"
        event = Validated(0, 18, 18, 2.5)
        progress.take(event)
        display.heard(progress, event)
        ended = Ended(0, Ending.COMPLETED)
        progress.take(ended)
        display.heard(progress, ended)
    text = screen.getvalue()
    assert "trial 0 begins: " in text
    assert "trial 0 completed at step 18, rung 3 of 3: val_nlpd 2.5000" in text
    assert "best so far 2.5000 (trial 0), 1 of 12 trials, time left: about " in text


def test_the_table_shows_value_rung_and_hyperparameters(search_of: Write) -> None:
    search = search_of()
    progress, (console, screen) = Progress(search), _console(terminal=True)
    with SearchDisplay(console, cost_of(search), progress, live=True) as display:
        display.begun(progress, progress.trials[0])
        event = Validated(0, 2, 2, 2.5)
        progress.take(event)
        display.heard(progress, event)
        display.waited(progress)
    text = screen.getvalue()
    for word in ("val_nlpd", "gamma", "learning_rate", "training", "1 of 3", "2.5000"):
        assert word in text


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", ["adaptive", "random", "grid"])
def test_the_tables_of_our_experiments_cut_nothing_short(name: str, width: int) -> None:
    search = read_search(REPOSITORY / "experiments" / "flights" / f"{name}.yaml")
    progress, (console, screen) = Progress(search), _console(terminal=True, width=width)
    with SearchDisplay(console, cost_of(search), progress, live=True) as display:
        display.begun(progress, progress.trials[0])
        event = Validated(0, 250, 250, 5.0912)
        progress.take(event)
        display.heard(progress, event)
    text = screen.getvalue()
    apart = width == 200 or name == "grid"  # of two
    assert ("hyperparameters" in text) is not apart
    assert "…" not in text
    for word in ("training", "250", "5.0912", *columns_of(search).values()):
        assert word in text


def test_names_are_as_short_as_is_clear(search_of: Write) -> None:
    either = {"type": "categorical", "vals": ["squared_exponential", "matern52"]}
    noise = {"type": "categorical", "vals": ["gaussian"]}
    hyperparameters = {
        "global_batch_size": 32,
        "model": {
            "kernel": {"name": either, "variance": {"type": "double", "minval": 1, "maxval": 2}},
            "likelihood": {"name": noise},
        },
    }
    names = columns_of(search_of(hyperparameters=hyperparameters, searcher=RANDOM))
    assert sorted(names.values()) == ["kernel.name", "likelihood.name", "variance"]
    hyperparameters["model"] = {"kernel": {"name": either}}
    (name,) = columns_of(search_of(hyperparameters=hyperparameters, searcher=RANDOM)).values()
    assert name == "kernel.name"  # "name" alone would be clear, and say nothing


def test_spans_of_time_are_as_precise_as_estimates() -> None:
    assert [time_in_words(seconds) for seconds in (3.2, 89, 600, 7200)] == [
        "3 s",
        "89 s",
        "10 min",
        "2.0 h",
    ]
