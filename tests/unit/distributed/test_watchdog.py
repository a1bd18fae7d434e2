from __future__ import annotations

from dataclasses import replace

import pytest

from natdgp.distributed.heartbeat import Phase, Reading
from natdgp.distributed.watchdog import LIMIT as DEFAULT
from natdgp.distributed.watchdog import START, VARIABLE, Watchdog, limit_from

LIMIT = 60.0


def _training(beats: int, events: int, steps: int = 5) -> Reading:
    return Reading(beats, events, steps, Phase.TRAINING, first=False)


def test_ranks_that_go_on_are_let_alone() -> None:
    watchdog = Watchdog(LIMIT)
    for now in range(0, 1000, 50):
        assert watchdog.look([_training(now, now), _training(now, now)], now) is None


def test_a_rank_that_no_longer_beats_is_named_though_all_stand_still() -> None:
    watchdog = Watchdog(LIMIT)
    assert watchdog.look([_training(1, 10), _training(1, 9)], 0) is None
    assert watchdog.look([_training(120, 10), _training(1, 9)], 60) is None
    stall = watchdog.look([_training(121, 10), _training(1, 9)], 61)
    assert str(stall) == "rank 1 gave no sign of life for 60 s after step 5"


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (
            [_training(0, 12, 6), _training(0, 11, 5)],
            "rank 1 made no progress for 60 s after step 5",
        ),
        ([_training(0, 11), _training(0, 11)], "ranks 0, 1 made no progress for 60 s after step 5"),
        (
            [Reading(0, 11, 6, Phase.WAITING, False), _training(0, 12, 6)],
            "rank 1 made no progress for 60 s after step 6",
        ),
    ],
    ids=["behind", "equally far", "at work while another is between workloads"],
)
def test_the_ranks_that_keep_others_waiting_are_named(shown: list[Reading], told: str) -> None:
    watchdog = Watchdog(LIMIT)
    for now in (0, 60):
        assert watchdog.look([replace(one, beats=now) for one in shown], now) is None
    assert str(watchdog.look([replace(one, beats=61) for one in shown], 61)) == told


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.TRAINING, Phase.VALIDATING])
def test_preparations_and_the_first_of_each_kind_of_work_may_take_longer(phase: Phase) -> None:
    """Graphs are traced then, by one rank before the other has finished or by all."""
    watchdog = Watchdog(LIMIT)
    shown = [_training(0, 30, 9), *(Reading(0, n, 9, phase, first=True) for n in (30, 29))]
    for now in (0, 61, START * LIMIT):
        assert watchdog.look([replace(one, beats=int(now)) for one in shown], now) is None
    stall = watchdog.look([replace(one, beats=9999) for one in shown], START * LIMIT + 1)
    assert stall is not None
    assert (stall.ranks, stall.silent) == ((2,), False)
    where = "before its first step" if phase is Phase.STARTING else "after step 9"
    assert str(stall).endswith(f"for 600 s {where}")


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.VALIDATING])
def test_later_work_of_a_kind_may_not(phase: Phase) -> None:
    watchdog = Watchdog(LIMIT)
    assert watchdog.look([Reading(0, 30, 9, phase, first=False)] * 2, 0) is None
    assert watchdog.look([Reading(1, 30, 9, phase, first=False)] * 2, 61) is not None


LONG = {
    "all are between workloads": (
        [(12, Phase.WAITING), (11, Phase.WAITING)],
        "rank 1 made no progress for 600 s after step 6",
    ),
    "one saves, for which another waits at its next step": (
        [(11, Phase.SAVING), (12, Phase.TRAINING)],
        "rank 0 made no progress for 600 s after step 6",
    ),
    "one has ended": (
        [(12, Phase.ENDING), (12, Phase.TRAINING)],
        "rank 1 made no progress for 600 s after step 6",
    ),
    "one is not there": (
        [(12, Phase.TRAINING), None],
        "rank 1 gave no sign of life for 600 s before its first step",
    ),
}


@pytest.mark.parametrize(("shown", "told"), LONG.values(), ids=list(LONG))
def test_what_nobody_can_say_the_length_of_may_take_longer_but_not_for_ever(
    shown: list[tuple[int, Phase] | None], told: str
) -> None:
    def readings(now: float) -> list[Reading | None]:
        return [one and Reading(int(now), one[0], 6, one[1], first=False) for one in shown]

    watchdog = Watchdog(LIMIT)
    for now in (0, 61, START * LIMIT):
        assert watchdog.look(readings(now), now) is None
    assert str(watchdog.look(readings(9999), START * LIMIT + 1)) == told


def test_a_report_at_the_end_may_take_any_time() -> None:
    watchdog = Watchdog(LIMIT)
    for now in (0, 1000, 10_000):
        assert watchdog.look([Reading(now, 12, 6, Phase.ENDING, first=False)] * 2, now) is None


def test_ranks_of_another_machine_are_called_by_their_numbers() -> None:
    watchdog = Watchdog(LIMIT, first=4)
    for now in (0, 60):
        watchdog.look([_training(now, 12), _training(0, 12)], now)
    silent = watchdog.look([_training(61, 13), _training(0, 12)], 61)
    assert silent is not None
    assert silent.ranks == (5,)
    watchdog = Watchdog(LIMIT, first=4)
    watchdog.look([_training(0, 12), _training(0, 11)], 0)
    stuck = watchdog.look([_training(61, 12), _training(61, 11)], 61)
    assert stuck is not None
    assert stuck.ranks == (5,)


def test_the_limit_is_the_environments_or_the_default() -> None:
    assert limit_from(None) == DEFAULT
    assert limit_from("2.5") == 2.5


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{VARIABLE} is '{text}'; give seconds above 0"):
        limit_from(text)
