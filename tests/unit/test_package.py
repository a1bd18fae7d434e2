"""What `import natdgp` offers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import natdgp


def _run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout


def test_all_that_it_lists_is_there() -> None:
    assert {"fit", "load", "DeepGPRegressor", "NatGradModel"} < {*dir(natdgp)}
    assert all(getattr(natdgp, name) is not None for name in dir(natdgp))
    with pytest.raises(AttributeError, match="has no attribute 'fti'"):
        _ = natdgp.fti


def test_tensorflow_is_imported_when_it_is_used_and_determined_never() -> None:
    program = """
import sys, natdgp
print("tensorflow" in sys.modules)
natdgp.fit, natdgp.load, natdgp.NatGradModel, natdgp.DeepGP
print([name for name in ("determined", "horovod", "sklearn") if name in sys.modules])
"""
    assert _run(program).splitlines() == ["False", "[]"]


def test_without_scikit_learn_the_rest_is_there_and_an_error_says_what_to_do() -> None:
    program = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "sklearn" else find(name)
sys.modules["sklearn.base"] = sys.modules["sklearn"] = None
import natdgp
print("DeepGPRegressor" in dir(natdgp))
try:
    natdgp.DeepGPRegressor
except ImportError as error:
    print(error)
"""
    listed, error = _run(program).splitlines()
    assert listed == "False"
    assert error.endswith("pip install 'natdgp[sklearn]'")


def test_its_example_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, example = (natdgp.__doc__ or "").partition("::\n")
    lines = [line[4:] for line in example.splitlines() if not line or line.startswith("    ")]
    program = "\n".join(lines).replace('model={"layers": 2}', 'model={"layers": 1}, steps=2')
    assert "steps=2" in program
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert natdgp.load("waves").targets == ("y",)
