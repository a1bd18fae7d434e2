from __future__ import annotations

from typing import Any

import pytest

from natdgp.run.run_folder import FolderError
from natdgp.search.event_log import EventLog
from natdgp.search.search_folder import SearchFolder
from natdgp.search.search_methods import TrialEnding
from natdgp.search.search_state import SearchState
from natdgp.settings import Search
from tests.unit.search.conftest import CONFIG, EVENTS, RANDOM, Write


def _trials(state: SearchState) -> list[tuple[object, ...]]:
    return [(t.number, t.values, t.to_end, t.ending, t.reason) for t in state.trials]


def test_the_state_is_replayed_from_the_events(folder: SearchFolder, search: Search) -> None:
    for event in EVENTS:
        log = EventLog(folder, search)
        log.take(event)
        assert _trials(EventLog(folder, search).state) == _trials(log.state)
    trial = EventLog(folder, search).state.trials[1]
    assert (trial.ending, trial.reason) == (TrialEnding.INVALID, "gamma is too long")


def test_a_line_that_a_kill_cut_short_is_dropped(folder: SearchFolder, search: Search) -> None:
    log = EventLog(folder, search)
    log.take(EVENTS[0])
    whole = folder.events.read_bytes()
    log.take(EVENTS[1])
    for length in range(len(whole), len(folder.events.read_bytes()) - 1, 20):
        folder.events.write_bytes(folder.events.read_bytes()[:length])
        log = EventLog(folder, search)
        assert log.state.trials[0].values == {2: 3.5}
        log.take(EVENTS[1])
        assert EventLog(folder, search).state.trials[0].values == {2: 3.5, 6: 3.75}
    folder.events.write_bytes(whole[:10])
    assert not EventLog(folder, search).state.trials[0].values


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "5",
        "{}",
        "\xff",
        '{"event": "validated", "trial": 0, "steps": 4}',
        '{"event": "ended", "trial": 0, "ending": "of itself", "reason": null}',
        '{"event": "ended", "trial": 99, "ending": "completed", "reason": null}',
    ],
)
def test_a_damaged_line_is_told(folder: SearchFolder, search: Search, line: str) -> None:
    EventLog(folder, search).take(EVENTS[0])
    lines = folder.events.read_bytes().splitlines()
    for number in (0, 1):
        damaged = [*lines[:number], line.encode("latin-1"), *lines[number + 1 :], b""]
        folder.events.write_bytes(b"\n".join(damaged))
        with pytest.raises(FolderError, match=r"events\.jsonl cannot be read \(.*\); move it away"):
            EventLog(folder, search)


@pytest.mark.parametrize(
    "other",
    [
        {"name": "ripples"},
        {"searcher": {**RANDOM, "max_trials": 1}},
        {"reproducibility": {"experiment_seed": 6}},
        {"hyperparameters": {**CONFIG["hyperparameters"], "global_batch_size": 32}},
    ],
)
def test_the_events_of_another_search_are_refused(
    folder: SearchFolder, search: Search, search_of: Write, other: dict[str, Any]
) -> None:
    for event in EVENTS:  # of which a search of one trial could make nothing
        EventLog(folder, search).take(event)
    with pytest.raises(FolderError, match=r"events\.jsonl remembers another search"):
        EventLog(folder, search_of(**{"searcher": RANDOM, **other}))
    EventLog(folder, search)
