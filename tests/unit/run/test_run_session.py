from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from natdgp.checkpoint.checksums import RECORD_NAME, write_checksums
from natdgp.checkpoint.record import FORMAT
from natdgp.data.prepare import prepare
from natdgp.data.table import DataError
from natdgp.run import final_report
from natdgp.run import run_session as session_module
from natdgp.run.durable_files import NotSaved
from natdgp.run.local_training import Outcome, train
from natdgp.run.run_display import Display
from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.run_session import new_run, run_and_report
from natdgp.settings.experiment import Experiment, read_experiment
from natdgp.training.diagnosis import TrainingFailure
from tests.checkpoint_files import write_checkpoint
from tests.conftest import REPOSITORY
from tests.integration.conftest import Watcher

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def experiment(small_experiment: dict[str, Any], write_experiment: Write) -> Experiment:
    return read_experiment(write_experiment(small_experiment))


@pytest.fixture
def new(write_experiment: Write, tmp_path: Path) -> Callable[..., RunFolder]:
    """Claims a run's folder for an experiment's plain values, with a trial of that name."""

    def new(
        config: dict[str, Any], trial: str = "trials.deep_gp:DeepGPTrial", source: Path = REPOSITORY
    ) -> RunFolder:
        entrypoint = config["entrypoint"].replace("trials.deep_gp:DeepGPTrial", trial)
        experiment = read_experiment(write_experiment({**config, "entrypoint": entrypoint}))
        return new_run(experiment, source, tmp_path / "run")

    return new


def test_the_resolved_configuration_tells_all_defaults_and_is_itself_ready_for_a_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    folder = new_run(experiment, REPOSITORY, tmp_path / "run")
    again = read_experiment(folder.config)
    assert again.settings == experiment.settings
    assert again.config["searcher"] == experiment.config["searcher"]
    assert again.trial == experiment.trial
    hyperparameters = again.config["hyperparameters"]
    assert hyperparameters["model"]["kernel"]["name"] == "squared_exponential"
    assert hyperparameters["model"]["dtype"] == "float64"
    assert hyperparameters["natural_gradient"]["layers"] == "last"
    assert again.config["data"]["split"] == {"validation": 0.1, "test": 0.1, "seed": 0}
    assert again.config["checkpoint_policy"] == "best"
    assert again.config["reproducibility"] == {"experiment_seed": 0}
    second = new_run(again, REPOSITORY, tmp_path / "second")
    assert second.config.read_text() == folder.config.read_text()
    copied, original = folder.code / "trials" / "deep_gp.py", REPOSITORY / "trials" / "deep_gp.py"
    assert copied.read_bytes() == original.read_bytes()


def test_a_relative_data_path_is_relative_to_the_source(
    small_experiment: dict[str, Any], new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    table = tmp_path / "source" / "tables" / "waves.csv"
    table.parent.mkdir(parents=True)
    Path(small_experiment["data"]["path"]).rename(table)
    small_experiment["data"]["path"] = "tables/waves.csv"
    folder = new(small_experiment, "natdgp.determined:DeepGPTrial", tmp_path / "source")
    assert read_experiment(folder.config).config["data"]["path"] == str(table)


@pytest.mark.parametrize("path", ["loop", 5000 * "d"])
def test_a_data_path_that_leads_nowhere_is_kept_for_its_reader_to_refuse(
    path: str, small_experiment: dict[str, Any], new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    small_experiment["data"]["path"] = str(tmp_path / path)
    settings = read_experiment(new(small_experiment).config).settings
    with pytest.raises(DataError, match=f"{path}: cannot be read as csv"):
        prepare(settings.data, "float64")


@pytest.mark.parametrize(
    ("trial", "looked_for"),
    [(300 * "x" + ":Trial", r"x\.py"), ("missing.deep_gp:Trial", r"missing/deep_gp\.py")],
)
def test_a_missing_trial_is_told_and_leaves_no_folder(
    small_experiment: dict[str, Any],
    new: Callable[..., RunFolder],
    tmp_path: Path,
    trial: str,
    looked_for: str,
) -> None:
    with pytest.raises(FolderError, match=f"there is no .*{looked_for}"):
        new(small_experiment, trial)
    assert not (tmp_path / "run").exists()


def test_default_folder_is_under_runs_with_the_experiments_name(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    roots = [new_run(experiment, REPOSITORY, None).root for _ in range(2)]
    assert roots == [tmp_path / "runs" / "waves", tmp_path / "runs" / "waves-2"]


@pytest.mark.parametrize("step", ["copy_trial_code", "write_config"])
def test_a_failure_on_the_way_leaves_no_folder(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(session_module if step == "copy_trial_code" else RunFolder, step, fail)
    with pytest.raises(OSError, match="disk full"):
        new_run(experiment, REPOSITORY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def shallow(small_experiment: dict[str, Any], write_experiment: Write, tmp_path: Path) -> RunFolder:
    """A folder, its name in need of quotes, for four steps of a one-layer model."""
    small_experiment["hyperparameters"] = {
        "global_batch_size": 32,
        "model": {"layers": 1, "inducing_points": 5},
        "evaluation": {"num_samples": 1, "batch_size": 30},
    }
    small_experiment["searcher"]["max_length"] = {"batches": 4}
    experiment = read_experiment(write_experiment(small_experiment))
    return new_run(experiment, REPOSITORY, tmp_path / "my runs" / "one")


def _report(folder: RunFolder) -> tuple[int, str]:
    """Exit status and screen of a run on a narrow terminal."""
    screen = io.StringIO()
    console = Console(file=screen, width=40, highlight=False, markup=False, emoji=False)
    return run_and_report(console, folder, live=False), screen.getvalue()


def _sessions(folder: RunFolder) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = json.loads(folder.manifest.read_text())["sessions"]
    return sessions


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM after a training step, once."""
    training = Display.training

    def interrupt(self: Any, steps: int, metrics: Any) -> None:
        training(self, steps, metrics)
        if steps == step:
            monkeypatch.setattr(Display, "training", training)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Display, "training", interrupt)


@pytest.mark.parametrize("step", [2, 4])
def test_an_interrupted_run_tells_how_to_go_on_and_completes_when_resumed(
    shallow: RunFolder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """After 4 of 4 steps, the last validation is still to come."""
    _interrupt_at(monkeypatch, step)
    status, screen = _report(shallow)
    assert status == 128 + signal.SIGTERM
    assert f"SIGTERM after step {step} of 4; everything is saved." in screen
    assert f"\n  natdgp train --resume '{shallow.root}'\n" in screen
    assert not shallow.summary.exists()

    status, screen = _report(shallow)
    assert status == 0
    assert f"Going on with {shallow.root} from step {step}\n" in screen
    assert [session["ended_as"] for session in _sessions(shallow)] == ["interrupted", "completed"]
    assert [session["steps"] for session in _sessions(shallow)] == [step, 4]
    summary = json.loads(shallow.summary.read_text())
    assert (summary["steps"], summary["best_checkpoint"]) == (4, "checkpoints/step-00000004")
    assert summary["seconds"] == sum(session["seconds"] for session in _sessions(shallow))


def test_a_breakdown_is_told_with_the_trials_own_words(
    shallow: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise TrainingFailure("lengthscales [a, b] are not finite; lower adam.learning_rate")

    monkeypatch.setattr(session_module, "train", break_down)
    status, screen = _report(shallow)
    assert status == 1
    assert "lengthscales [a, b] are not finite; lower adam.learning_rate" in screen
    (session,) = _sessions(shallow)
    assert session["ended_as"] == "invalid"
    assert session["reason"] == "lengthscales [a, b] are not finite; lower adam.learning_rate"


def test_a_test_figure_that_is_not_finite_is_told_and_not_reported(
    shallow: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = final_report._figures
    monkeypatch.setattr(
        final_report, "_figures", lambda *these: {**figures(*these), "nlpd": math.inf}
    )
    status, screen = _report(shallow)
    assert status == 1
    assert "broke down: test_nlpd of the best checkpoint is inf. Lower hyperparameters." in screen
    assert not shallow.summary.exists()


def test_a_run_that_ends_itself_is_reported_as_stopped(
    shallow: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def stop_early(*these: Any) -> Outcome:
        return replace(train(*these), steps=2, completed=False)

    def conclude(_: Console, __: RunFolder, outcome: Outcome, *___: float, **____: float) -> None:
        ended.append(outcome.steps)

    monkeypatch.setattr(session_module, "train", stop_early)
    monkeypatch.setattr(session_module, "conclude", conclude)
    status, screen = _report(shallow)
    assert (status, ended) == (0, [2])
    assert "ended itself after step 2 of 4" in screen.replace("\n", " ")
    assert [session["ended_as"] for session in _sessions(shallow)] == ["stopped"]


def _told_of(folder: RunFolder) -> dict[str, bytes]:
    """Reports, figures and TensorBoard's events by their paths."""
    files = [folder.metrics, folder.summary, *folder.tensorboard.iterdir()]
    return {str(file.relative_to(folder.root)): file.read_bytes() for file in files}


def test_a_run_that_begins_anew_says_so_and_keeps_its_former_reports_aside(
    shallow: RunFolder,
) -> None:
    """Not before it is sure to begin."""
    assert "begins anew" not in _report(shallow)[1]
    before = _told_of(shallow)
    shutil.rmtree(shallow.root / "checkpoints")
    data = Path(read_experiment(shallow.config).config["data"]["path"])
    away = data.rename(data.with_name("away"))
    with pytest.raises(DataError):
        _report(shallow)
    assert _told_of(shallow) == before

    away.rename(data)
    status, screen = _report(shallow)
    assert status == 0
    assert "There is no checkpoint: the run begins anew; what it has reported goes to fo" in screen
    assert {name: (shallow.root / "former" / name).read_bytes() for name in before} == before
    assert _told_of(shallow).keys() > {"metrics.jsonl", "summary.json"}
    assert shallow.former.name == "former-2"


def test_a_damaged_checkpoint_is_left_out_of_a_run_that_goes_on(shallow: RunFolder) -> None:
    assert _report(shallow)[0] == 0
    assert shallow.best.is_dir()
    (shallow.checkpoint(4).path / "natdgp-state.json").unlink()
    status, screen = _report(shallow)
    assert status == 0
    assert "natdgp-state.json is missing; that checkpoint is left out\n" in screen
    assert "There is no checkpoint: the run begins anew" in screen


def test_a_checkpoint_that_names_no_model_is_left_out_and_falls_back(shallow: RunFolder) -> None:
    config = read_experiment(shallow.config).config
    shallow.write_config({**config, "min_validation_period": {"batches": 2}})
    assert _report(shallow)[0] == 0
    (shallow.checkpoint(4).path / RECORD_NAME).write_text("{}")
    write_checksums(shallow.checkpoint(4).path)
    status, screen = _report(shallow)
    assert status == 0
    assert f"{RECORD_NAME} is no record of a model: KeyError('format'); that check" in screen
    assert f"Going on with {shallow.root} from step 2\n" in screen


def test_a_run_whose_code_is_gone_is_refused_with_where_it_was(
    small_experiment: dict[str, Any], new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "trial_of_mine.py").write_text("Trial = None\n")
    folder = new(small_experiment, "trial_of_mine:Trial", tmp_path)
    folder.code.rename(tmp_path / "lost")
    with pytest.raises(FolderError) as raised:
        train(read_experiment(folder.config), folder, Watcher())
    assert str(folder.code) in str(raised.value)
    assert str(raised.value).endswith("; bring it back, or begin a new run")


def test_what_a_trial_itself_misses_comes_through(
    small_experiment: dict[str, Any], new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "needy_trial.py").write_text("import nothing_of_that_name\n")
    folder = new(small_experiment, "needy_trial:Trial", tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        _report(folder)
    assert [session["ended_as"] for session in _sessions(folder)] == ["failed"]


def test_a_run_beyond_its_length_is_not_said_to_have_stopped_early(shallow: RunFolder) -> None:
    assert _report(shallow)[0] == 0
    config = read_experiment(shallow.config).config
    searcher = {**config["searcher"], "max_length": {"batches": 3}}
    shallow.write_config({**config, "searcher": searcher})
    status, screen = _report(shallow)
    assert status == 0
    assert "The run stands at step 4, beyond its length of 3 (searcher.max_length)" in screen
    assert "early stopping" not in screen
    assert [session["ended_as"] for session in _sessions(shallow)] == 2 * ["completed"]


def test_what_is_not_saved_is_told_with_a_way_on_whatever_the_reason(
    shallow: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        shallow.checkpoint(4).path.mkdir()
        write_checkpoint(shallow.checkpoint(4).path)
        raise NotSaved("metrics.jsonl cannot be written: Is a directory")

    monkeypatch.setattr(session_module, "train", fail)
    status, screen = _report(shallow)
    assert status == 1
    assert "The run ended: metrics.jsonl cannot be written: Is a directory\n" in screen
    assert "Saved up to step 4. Once that can be written, go on with:\n  natdgp train" in screen


def test_a_run_of_a_newer_natdgp_is_refused(shallow: RunFolder) -> None:
    assert _report(shallow)[0] == 0
    checkpoint = shallow.checkpoints()[-1].path
    record = json.loads((checkpoint / RECORD_NAME).read_text())
    (checkpoint / RECORD_NAME).write_text(json.dumps({**record, "format": FORMAT + 1}))
    write_checksums(checkpoint)
    with pytest.raises(FolderError, match=r"newer than .*; upgrade natdgp"):
        _report(shallow)


def test_a_completed_run_is_only_reported_again(shallow: RunFolder) -> None:
    assert _report(shallow)[0] == 0
    weights = {path: path.read_bytes() for path in shallow.checkpoint(4).path.glob("*weights*")}
    metrics = shallow.metrics.read_bytes()
    figures = json.loads(shallow.summary.read_text())
    status, _ = _report(shallow)
    assert status == 0
    assert weights == {path: path.read_bytes() for path in weights}
    assert shallow.metrics.read_bytes() == metrics
    again = json.loads(shallow.summary.read_text())
    timings = {"seconds", "examples_per_second"}
    assert {name: again[name] for name in again.keys() - timings} == {
        name: figures[name] for name in figures.keys() - timings
    }
