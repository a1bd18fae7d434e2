from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from natdgp.run.run_display import Display

VALIDATION = {"val_nlpd": 1.25, "val_rmse": 2.5, "val_crps": 0.75, "val_coverage_95": 0.9375}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("natdgp.run.run_display.time", clock)
    return clock


def _display(*, start: int = 0, live: bool = False, width: int = 30) -> tuple[Display, Any]:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=live, highlight=False)
    display = Display(console, total_steps=20, start=start, batch_size=32, live=live)
    return display, screen


def test_plain_lines_tell_step_elbo_speed_and_time_left(clock: Clock) -> None:
    display, screen = _display()
    with display:
        display.status("training")
        clock.now += 2.0
        display.training(5, {"elbo_per_datum": -1.5, "loss": 1.0})
    # 5 steps of 32 rows in 2 s; 15 steps of 32 rows are left; one line however narrow
    assert screen.getvalue() == "step 5/20  ELBO -1.5000  80 examples/s  6 s of training left\n"


def test_validation_figures_are_told_in_one_line() -> None:
    display, screen = _display()
    with display:
        display.validation(10, VALIDATION)
    assert screen.getvalue() == (
        "validation after step 10:  NLPD 1.2500  RMSE 2.5000  CRPS 0.7500  95% coverage 0.9375\n"
    )


def test_speed_counts_training_alone(clock: Clock) -> None:
    display, _ = _display()
    with display:
        assert display.examples_per_second == 0.0
        display.status("training")
        clock.now += 1.0
        display.training(4, {"elbo_per_datum": 0.0})
        display.status("validating")
        clock.now += 50.0
        display.validation(4, VALIDATION)
        display.status("checkpointing")
        clock.now += 50.0
        display.status("training")
        clock.now += 1.0
        display.training(8, {"elbo_per_datum": 0.0})
    assert display.examples_per_second == pytest.approx(8 * 32 / 2.0, rel=1e-12)


def test_a_resumed_run_counts_its_own_steps_alone(clock: Clock) -> None:
    display, screen = _display(start=16)
    with display:
        display.status("training")
        display.training(17, {"elbo_per_datum": 0.0})  # in no time, which divides nothing
        clock.now += 1.0
        display.training(18, {"elbo_per_datum": 0.0})
    assert display.examples_per_second == pytest.approx(64.0, rel=1e-12)
    assert screen.getvalue().startswith("step 17/20  ELBO 0.0000  0 examples/s  0 s of training")


def test_a_terminal_gets_one_line_that_is_redrawn(clock: Clock) -> None:
    display, screen = _display(live=True, width=120)
    with display:
        display.status("training")
        clock.now += 2.0
        display.training(5, {"elbo_per_datum": -1.5})
        display.validation(5, VALIDATION)
    shown = screen.getvalue()
    assert "step 5/20" not in shown
    assert "5/20" in shown
    assert "ELBO -1.5000, 80 examples/s" in shown
    assert "validation after step 5:  NLPD 1.2500" in shown
