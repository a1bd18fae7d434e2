from __future__ import annotations

import io

import pytest
from rich.console import Console

from natdgp.search.search_display import SearchDisplay
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import Event, SearchState, ended, validated
from natdgp.settings import read_search
from tests.conftest import REPOSITORY
from tests.unit.search.conftest import Write


def _console(*, terminal: bool, width: int = 160) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=width, color_system=None), screen


def _shown(display: SearchDisplay, state: SearchState, *events: Event) -> None:
    trial = state.trials[events[0]["trial"]]
    trial.under_way = True
    display.show(trial)
    for event in events:
        state.take(event)
    if trial.ending is not None:
        display.show(trial)
    display.show(None)


def test_lines_tell_of_each_trial_and_the_best_so_far(
    search_of: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10_000, 60))
    monkeypatch.setattr("natdgp.search.search_display.time.monotonic", lambda: next(now))
    state, (console, screen) = SearchState(search_of()), _console(terminal=False)
    display = SearchDisplay(console, state, live=False)
    assert display.time_left() == "known after the first trial"
    _shown(display, state, validated(0, 18, 18, 2.5), ended(0, TrialEnding.COMPLETED))
    _shown(display, state, ended(1, TrialEnding.FAILED, "ValueError"))
    text = screen.getvalue()
    assert "trial 0 begins: " in text
    assert "trial 0 completed at step 18, rung 3 of 3: val_nlpd 2.5000\n" in text
    # A trial a minute, 11 of them, less the minute since the last one ended.
    assert "best so far 2.5000 (trial 0), 1 of 12 trials, time left: about 0:10:00\n" in text
    assert "trial 1 failed at step 0, rung 0 of 3: ValueError\n" in text


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", ["adaptive", "random", "grid"])
def test_the_tables_of_our_experiments_cut_nothing_short(name: str, width: int) -> None:
    search = read_search(REPOSITORY / "experiments" / "flights" / f"{name}.yaml")
    state, (console, screen) = SearchState(search), _console(terminal=True, width=width)
    display = SearchDisplay(console, state, live=True)
    assert display.live is not None
    with display.live:
        _shown(display, state, validated(0, 250, 250, 5.0912))
    text = screen.getvalue()
    assert "…" not in text
    for word in ("val_nlpd", "training", "250", "5.0912", *state.trials[0].searched):
        assert word in text
    assert ("1 of 3" in text) is (name == "adaptive")
