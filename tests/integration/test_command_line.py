"""The installed command, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from ruamel.yaml import YAML

from tests.conftest import REPOSITORY

NATDGP = Path(sys.executable).parent / "natdgp"
STEPS = 200
CONFIG: dict[str, Any] = {
    "name": "waves",
    "entrypoint": "python3 -m determined.launch.horovod --autohorovod "
    "--trial trials.deep_gp:DeepGPTrial",
    "environment": {"image": "determinedai/tensorflow-ngc:0.38.1"},
    "searcher": {"name": "single", "metric": "val_nlpd", "max_length": {"batches": STEPS}},
    "min_validation_period": {"batches": 80},
    "scheduling_unit": 2,
    "data": {"source": "csv", "path": "waves.csv", "target": ["y"]},
    "hyperparameters": {
        "global_batch_size": 16,
        "model": {"layers": 2, "inducing_points": 8},
        "evaluation": {"num_samples": 3, "batch_size": 32},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, its table and its trial; its name needs quotes."""
    place = tmp_path_factory.mktemp("a user's")
    generator = np.random.default_rng(0)
    X = generator.normal(size=(200, 3))
    y = 10 * np.sin(2 * X[:, 0]) + 5 * X[:, 1] + generator.normal(size=200) + 3
    pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": y}).write_csv(place / "waves.csv")
    with (place / "experiment.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(CONFIG, file)
    shutil.copytree(REPOSITORY / "trials", place / "trials")
    return place


def _run(place: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=300, check=False
    )


def _train(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run(place, NATDGP, "train", *arguments)


@pytest.fixture(scope="module")
def straight(place: Path) -> subprocess.CompletedProcess[str]:
    """A run from start to end, into runs/waves."""
    return _train(place, "experiment.yaml")


def _weights(run: Path) -> dict[str, Any]:
    path = str(run / "checkpoints" / f"step-{STEPS:08d}" / "determined-keras-model-weights")
    return {
        name: tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def test_training_ends_with_figures_and_whereabouts(
    place: Path, straight: subprocess.CompletedProcess[str]
) -> None:
    assert straight.returncode == 0, straight.stderr
    assert straight.stderr == ""
    for text in (
        "Writing to runs/waves\n",
        f"step {STEPS}/{STEPS}  ELBO ",
        f"validation after step {STEPS}:  NLPD ",
        "Test figures on 20 rows (y)",
        "predict the mean",
        "linear regression",
        "Saved under runs/waves:",
    ):
        assert text in straight.stdout

    summary = json.loads((place / "runs" / "waves" / "summary.json").read_text())
    figures = ("rmse", "nlpd", "crps", "coverage_95")
    promised = {f"{part}_{name}" for part in ("test", "val") for name in figures}
    promised |= {"steps", "seconds", "examples_per_second", "best_checkpoint", "baselines"}
    assert summary.keys() >= promised
    assert summary["steps"] == STEPS
    assert summary["seconds"] > 0
    assert summary["examples_per_second"] > 0
    # the wave is there to be learnt
    assert summary["test_rmse"] < summary["baselines"]["linear regression"]["rmse"]
    assert f"{summary['test_rmse']:.4f}" in straight.stdout


def test_every_file_that_is_promised_is_there(
    place: Path, straight: subprocess.CompletedProcess[str]
) -> None:
    run = place / "runs" / "waves"
    assert {path.name for path in run.iterdir()} == {
        "best",
        "checkpoints",
        "code",
        "config.yaml",
        "lock",
        "manifest.json",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
    }
    summary = json.loads((run / "summary.json").read_text())
    assert (run / "best").resolve() == (run / summary["best_checkpoint"]).resolve()
    assert (run / "checkpoints" / f"step-{STEPS:08d}" / "natdgp.json").is_file()
    assert (run / "code" / "trials" / "deep_gp.py").is_file()
    assert list((run / "tensorboard").glob("events.out.tfevents*"))
    assert {path.name for path in place.iterdir()} >= {"runs", "trials", "waves.csv"}
    (session,) = json.loads((run / "manifest.json").read_text())["sessions"]
    assert session["ended_as"] == "completed"


def test_the_printed_line_of_python_predicts(
    place: Path, straight: subprocess.CompletedProcess[str]
) -> None:
    *_, line = straight.stdout.rstrip().splitlines()
    script = f"import numpy as np; X = np.zeros((2, 3)); print(({line.split(';')[1]}).shape)"
    assert line.split(";")[0] == "  import natdgp"
    done = _run(place, sys.executable, "-c", f"import natdgp; {script}")
    assert (done.returncode, done.stdout) == (0, "(2, 1)\n"), done.stderr


def test_the_same_folder_is_refused_and_nothing_in_it_changes(
    place: Path, straight: subprocess.CompletedProcess[str]
) -> None:
    def everything() -> dict[Path, tuple[float, int]]:
        stats = ((path, path.lstat()) for path in (place / "runs").rglob("*"))
        return {path: (stat.st_mtime, stat.st_size) for path, stat in stats}

    before = everything()
    done = _train(place, "experiment.yaml", "--out", "runs/waves")
    assert done.returncode == 2
    assert done.stderr == (
        "natdgp train: runs/waves exists already; go on with it by `natdgp train --resume "
        "runs/waves`, or choose another folder with --out\n"
    )
    assert everything() == before


@pytest.mark.slow  # interruptions are in test_resume.py and test_interruptions.py
def test_a_terminated_run_goes_on_by_the_printed_command_to_the_same_end(
    place: Path, straight: subprocess.CompletedProcess[str]
) -> None:
    out = "runs/it's broken"
    process = subprocess.Popen(
        [NATDGP, "train", "experiment.yaml", "--out", out],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (143, "")
    assert "SIGTERM after step " in stdout
    *_, saved = sorted((place / out / "checkpoints").iterdir())
    assert 0 < int(saved.name.removeprefix("step-")) < STEPS
    assert not (place / out / "summary.json").exists()

    *_, command = stdout.rstrip().splitlines()
    program, *arguments = shlex.split(command)
    assert program == "natdgp"
    done = _run(place, NATDGP, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Going on with {out} from step " in done.stdout

    one, other = _weights(place / "runs" / "waves"), _weights(place / out)
    assert one.keys() == other.keys()
    assert len(one) > 20
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize(
    ("opened", "options"),
    [(pty.openpty, []), (pty.openpty, ["--no-progress"]), (os.pipe, [])],
    ids=["its terminal is closed", "so is one without a bar", "its reader goes away"],
)
@pytest.mark.usefixtures("hangup_heeded")
def test_a_run_that_nobody_watches_any_more_is_saved(
    place: Path, tmp_path: Path, opened: Callable[[], tuple[int, int]], options: list[str]
) -> None:
    ours, its = opened()
    out = str(tmp_path / "run")
    command = [str(NATDGP), "train", "experiment.yaml", "--out", out, *options]
    with (
        (tmp_path / "stderr").open("w") as error,
        subprocess.Popen(command, cwd=place, stdout=its, stderr=error) as process,
    ):
        os.close(its)
        shown = b""
        while b"validation after" not in shown:
            shown += os.read(ours, 65536)
        os.close(ours)
        while process.poll() is None:  # the kernel sends one, the shell another, and so on
            if opened is pty.openpty:
                process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
    assert process.returncode == 128 + signal.SIGHUP
    assert (tmp_path / "stderr").read_text() == ""
    (session,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["sessions"]
    assert session["ended_as"] == "interrupted"
    *_, saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert saved.name == f"step-{session['steps']:08d}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["experiment.yaml", "--set", "hyperparameters.model.layer=1"], "did you mean layers?"),
        (["experiment.yaml", "--set", 'data.target=["z"]'], "no column 'z'"),
        (["experiment.yaml", "--set", "data.path=gaps.csv"], "column 'y', line 2: 'nan'"),
    ],
    ids=["no file", "no field", "no column", "nan"],
)
def test_what_is_wrong_is_told_without_a_traceback_and_leaves_nothing(
    place: Path, arguments: list[str], message: str
) -> None:
    (place / "gaps.csv").write_text("a,b,y\n1,2,nan\n2,3,4\n")
    done = _train(place, *arguments, "--out", "runs/wrong")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not os.path.lexists(place / "runs" / "wrong")
