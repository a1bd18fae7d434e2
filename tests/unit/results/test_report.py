from __future__ import annotations

import io
import shlex
from pathlib import Path

from rich.console import Console

from natdgp.results.report import figures_table, print_whereabouts


def _console(width: int) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, width=width, markup=False, emoji=False), screen


def test_every_model_has_its_row_of_figures() -> None:
    console, screen = _console(80)
    figures = {
        "deep GP": {"rmse": 1.5, "nlpd": 2.25, "crps": 0.12345, "coverage_95": 0.95, "loss": 9.0},
        "predict the mean": {"rmse": 3.0, "nlpd": 4.0, "crps": 2.0, "coverage_95": 1.0},
    }
    console.print(figures_table("Test figures on 30 rows (y)", figures))
    lines = [" ".join(line.replace("│", " ").split()) for line in screen.getvalue().splitlines()]
    assert lines[0] == "Test figures on 30 rows (y)"
    assert "deep GP 1.5000 2.2500 0.1235 0.9500" in lines
    assert "predict the mean 3.0000 4.0000 2.0000 1.0000" in lines


def test_figures_are_shown_that_all_models_have() -> None:
    console, screen = _console(80)
    figures = {"deep GP": {"nlpd": 0.5, "accuracy": 0.75}, "base rate": {"nlpd": 0.7, "brier": 1.0}}
    console.print(figures_table("", figures))
    assert "deep GP 0.5000" in " ".join(screen.getvalue().replace("│", " ").split())
    assert "accuracy" not in screen.getvalue()


def test_whereabouts_can_be_copied_from_a_narrow_terminal() -> None:
    console, screen = _console(20)
    root = Path("runs/a long name that would be wrapped/it's one")
    print_whereabouts(console, root, Path("checkpoints/step-00000012"))
    lines = screen.getvalue().splitlines()
    assert "  best checkpoint   checkpoints/step-00000012" in lines
    assert f"  tensorboard       tensorboard --logdir {shlex.quote(f'{root}/tensorboard')}" in lines
    (line,) = (line for line in lines if "natdgp.load" in line)
    assert line == f'  import natdgp; natdgp.load("{root}").predict(X).mean'
    for name in ("summary.json", "metrics.jsonl", "config.yaml", "manifest.json"):
        assert any(line.startswith(f"  {name} ") for line in lines)
