"""README's commands run as they stand there, only shorter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SHORTER = [
    "--set=searcher.max_length={batches: 6}",
    "--set=min_validation_period={batches: 3}",
    "--set=data.rows=500",
    "--set=hyperparameters.model.inducing_points=10",
    "--set=hyperparameters.evaluation.num_samples=3",
]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of a clone that README's commands name."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / "experiments", clone / "experiments")
    return clone


def _run(clone: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=clone,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_is_known_here() -> None:
    """A command that README gains needs a test below."""
    assert COMMANDS == [
        "make demo",
        "make test",
        "natdgp train experiments/flights/const.yaml",
        "natdgp train --resume runs/natdgp-flights-const",
        "natdgp train experiments/flights/const.yaml --set hyperparameters.model.layers=3 --seed 2 "
        "--out runs/three-layers",
        "natdgp check experiments/flights/const.yaml",
        "natdgp search experiments/flights/adaptive.yaml --jobs 2",
        "det experiment create experiments/flights/const.yaml .",  # tests/cluster
        "det experiment create --local --test --config entrypoint=natdgp.determined:DeepGPTrial "
        "experiments/flights/const.yaml .",  # test_determined_cli.py
    ]


def test_make_targets_are_what_readme_says() -> None:
    for target, command in {
        "demo": "natdgp train experiments/flights/const.yaml",
        "test": "python -m pytest --numprocesses 2 --dist loadgroup",
    }.items():
        planned = subprocess.run(
            ["make", "--dry-run", "--assume-old", ".venv/.ready", target],
            cwd=REPOSITORY,
            env={name: v for name, v in os.environ.items() if not name.startswith("MAKE")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert planned.stdout.splitlines()[-1].endswith(command)


def test_train_load_resume_and_change_as_readme_says(clone: Path) -> None:
    train, resume, three_layers = (COMMANDS[i].split() for i in (2, 3, 4))
    report = _run(clone, *train, *SHORTER)
    assert "linear regression" in report
    assert "natdgp.load('runs/natdgp-flights-const')" in report

    snippet = next(one for one in PYTHON if "natdgp.load" in one)
    printed = _run(clone, sys.executable, "-W", "ignore", "-c", snippet)
    assert "plane_age" in printed

    assert "Going on with runs/natdgp-flights-const from step 6" in _run(clone, *resume)
    _run(clone, *three_layers, *SHORTER[:3], *SHORTER[4:], SHORTER[3])
    assert (clone / "runs/three-layers/summary.json").is_file()


def test_check_as_readme_says(clone: Path) -> None:
    assert _run(clone, *COMMANDS[5].split()) == "experiments/flights/const.yaml: valid\n"


def test_search_as_readme_says(clone: Path) -> None:
    shorter = [*SHORTER, "--set=searcher.max_time=6", "--set=hyperparameters.model.layers=1"]
    output = _run(clone, *COMMANDS[6].split(), *shorter, "--trials", "1")
    assert "1 trial (1 completed), 6 steps" in output
    assert "natdgp.load('runs/natdgp-flights-adaptive')" in output
