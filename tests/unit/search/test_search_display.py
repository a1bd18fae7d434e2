from __future__ import annotations

import io

import pytest
from rich.console import Console

from natdgp.search.search_display import SearchDisplay, point_in_words, time_in_words
from natdgp.search.search_methods import Ending
from natdgp.search.search_state import SearchState, TrialEnded, TrialStarted, TrialValidated
from natdgp.settings import Search, read_search
from tests.conftest import REPOSITORY
from tests.unit.search.conftest import RANDOM, Write


def _console(*, terminal: bool, width: int = 160) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=width, color_system=None), screen


def _shown(
    display: SearchDisplay, state: SearchState, *events: TrialValidated | TrialEnded
) -> None:
    display.show(TrialStarted(events[0].trial))
    for event in events:
        state.take(event)
        display.show(event)
    display.show(None)


def test_lines_tell_of_each_trial_and_the_best_so_far(search_of: Write) -> None:
    state, (console, screen) = SearchState(search_of()), _console(terminal=False)
    with SearchDisplay(console, state, live=False) as display:
        assert display.time_left() == "known after the first trial"
        _shown(display, state, TrialValidated(0, 18, 18, 2.5), TrialEnded(0, Ending.COMPLETED))
        _shown(display, state, TrialEnded(1, Ending.FAILED, "ValueError"))
    text = screen.getvalue()
    assert "trial 0 begins: " in text
    assert "trial 0 completed at step 18, rung 3 of 3: val_nlpd 2.5000\n" in text
    assert "best so far 2.5000 (trial 0), 1 of 12 trials, time left: about " in text
    assert "trial 1 failed at step 0, rung 0 of 3: ValueError\n" in text


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", ["adaptive", "random", "grid"])
def test_the_tables_of_our_experiments_cut_nothing_short(name: str, width: int) -> None:
    search = read_search(REPOSITORY / "experiments" / "flights" / f"{name}.yaml")
    state, (console, screen) = SearchState(search), _console(terminal=True, width=width)
    with SearchDisplay(console, state, live=True) as display:
        _shown(display, state, TrialValidated(0, 250, 250, 5.0912))
    text = screen.getvalue()
    assert "…" not in text
    names = [word.split()[0] for word in point_in_words(search, state.trials[0]).split(", ")]
    for word in ("val_nlpd", "training", "250", "5.0912", *names):
        assert word in text
    assert ("1 of 3" in text) is (name == "adaptive")


def _names(search: Search) -> list[str]:
    words = point_in_words(search, SearchState(search).trials[0])
    return sorted(word.split()[0] for word in words.split(", "))


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
    names = _names(search_of(hyperparameters=hyperparameters, searcher=RANDOM))
    assert names == ["kernel.name", "likelihood.name", "variance"]
    hyperparameters["model"] = {"kernel": {"name": either}}
    (name,) = _names(search_of(hyperparameters=hyperparameters, searcher=RANDOM))
    assert name == "kernel.name"  # "name" alone would be clear, and say nothing


def test_spans_of_time_are_as_precise_as_estimates() -> None:
    assert [time_in_words(seconds) for seconds in (3.2, 89, 600, 7200)] == [
        "3 s",
        "89 s",
        "10 min",
        "2.0 h",
    ]
