from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import determined as det
import pytest
from determined.layers import WorkloadSequencer

from natdgp.run.local_training import copy_trial_code, find_trial_code, length_in_batches, train
from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.run_session import new_run
from natdgp.settings import Experiment, read_experiment
from natdgp.settings.schema import Settings
from tests.conftest import REPOSITORY
from tests.integration.conftest import Bench, Watcher


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A context folder with a module, a package and a package of packages."""
    for file in ("lone.py", "trials/__init__.py", "trials/mine.py", "trials/deep/er.py"):
        path = tmp_path / "source" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = {file!r}\n")
    (tmp_path / "source" / "trials" / "__pycache__").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("lone:Trial", "lone.py"),
        ("trials.mine:Trial", "trials"),
        ("trials.deep.er:Outer.Inner", "trials"),
        ("trials:Trial", "trials"),
    ],
)
def test_trial_code_is_the_module_or_the_package_it_lies_in(
    source: Path, spec: str, found: str
) -> None:
    assert find_trial_code(spec, source) == Path(found)


def test_an_installed_trial_is_not_carried_along(source: Path) -> None:
    assert find_trial_code("natdgp.determined:DeepGPTrial", source) is None


@pytest.mark.parametrize(
    "spec", ["trials.other:Trial", "nowhere:Trial", "nowhere.at.all:Trial", "natdgp.nothing:Trial"]
)
def test_a_missing_trial_is_refused_with_the_place_it_was_looked_for(
    source: Path, spec: str
) -> None:
    path = source.joinpath(*spec.partition(":")[0].split("."))
    with pytest.raises(FolderError) as raised:
        find_trial_code(spec, source)
    assert f"there is no {path}.py" in str(raised.value)
    assert spec in str(raised.value)


def test_looking_for_a_trial_does_not_run_it(source: Path) -> None:
    (source / "trials" / "__init__.py").write_text("raise RuntimeError")
    (source / "trials" / "mine.py").write_text("raise RuntimeError")
    assert find_trial_code("trials.mine:Trial", source) == Path("trials")


def test_code_is_copied_without_what_python_left_behind(source: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    copy_trial_code(Path("trials"), source, code)
    copy_trial_code(Path("lone.py"), source, code)
    copied = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    assert copied == {"trials/__init__.py", "trials/mine.py", "trials/deep/er.py", "lone.py"}
    assert not (code / "trials" / "__pycache__").exists()


@pytest.mark.parametrize(
    ("unit", "length", "batch_size"),
    [*itertools.product(["batches", "records", "epochs"], [1, 3, 31, 32, 33, 100], [1, 32, 100])],
)
def test_length_is_the_sequencers_own(unit: str, length: int, batch_size: int) -> None:
    sequencer = SimpleNamespace(records_per_epoch=70, global_batch_size=batch_size)
    config = {"searcher": {"max_length": {unit: length}}, "records_per_epoch": 70}
    settings = Settings.read({"global_batch_size": batch_size}, {"source": "flights"})
    expected = WorkloadSequencer.as_batches(sequencer, **{unit: length})
    assert length_in_batches(Experiment(config, settings)) == expected


@pytest.fixture
def bench(tmp_path: Path, write_experiment: Callable[[dict[str, Any]], Path]) -> Bench:
    return Bench(tmp_path, write_experiment)


@pytest.fixture
def shallow(small_experiment: dict[str, Any]) -> dict[str, Any]:
    """One layer, six steps of 32 records, every checkpoint kept."""
    small_experiment["hyperparameters"] = {
        "global_batch_size": 32,
        "model": {"layers": 1, "inducing_points": 5},
        "evaluation": {"num_samples": 1, "batch_size": 30},
    }
    small_experiment["searcher"]["max_length"] = {"batches": 6}
    small_experiment["min_validation_period"] = {"batches": 2}
    small_experiment["checkpoint_storage"] = {"save_trial_best": 99, "save_trial_latest": 99}
    return small_experiment


def _run(bench: Bench, config: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Steps of the validations and of the checkpoints of a run of six steps."""
    folder = bench.new(config)
    outcome = bench.go(folder)
    assert (outcome.steps, outcome.completed, outcome.signal) == (6, True, None)
    checkpoints = [checkpoint.steps for checkpoint in folder.checkpoints()]
    return [*bench.metrics(folder, "validation")], checkpoints


def test_records_are_counted_and_policy_all_saves_every_validation(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["searcher"]["max_length"] = {"records": 223}  # 6.97 batches
    shallow["min_validation_period"] = {"records": 70}  # 2.2 batches
    shallow["checkpoint_policy"] = "all"
    assert _run(bench, shallow) == ([2, 4, 6], [2, 4, 6])


def test_epochs_are_counted_and_policy_none_saves_the_end_alone(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["searcher"]["max_length"] = {"epochs": 2}
    shallow["records_per_epoch"] = 100  # 2 epochs are 6.25 batches, one is 3.1
    shallow["min_validation_period"] = {"epochs": 1}
    shallow["checkpoint_policy"] = "none"
    shallow["perform_initial_validation"] = True
    assert _run(bench, shallow) == ([0, 3, 6], [6])


def test_checkpoint_period_is_kept_without_validations(
    bench: Bench, shallow: dict[str, Any]
) -> None:
    shallow["min_validation_period"] = {"batches": 0}
    shallow["min_checkpoint_period"] = {"batches": 4}
    shallow["checkpoint_policy"] = "none"
    assert _run(bench, shallow) == ([6], [4, 6])


@pytest.mark.parametrize(("keep", "kept"), [(99, [1, 2, 3, 6]), (1, [3, 6])])
def test_policy_best_saves_what_improves_where_larger_is_better(
    bench: Bench,
    shallow: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    keep: int,
    kept: list[int],
) -> None:
    figures = iter([-3.0, -2.0, -1.0, -1.5, -1.0, -1.2])
    controller = det.load.get_trial_controller_class(
        det.load.trial_class_from_entrypoint("natdgp.determined:DeepGPTrial")
    )
    honest = controller._launch_evaluate
    monkeypatch.setattr(
        controller,
        "_launch_evaluate",
        lambda self: {**honest(self), "val_elbo_per_datum": next(figures)},
    )
    shallow["searcher"] |= {"metric": "val_elbo_per_datum", "smaller_is_better": False}
    shallow["min_validation_period"] = {"batches": 1}
    shallow["checkpoint_storage"]["save_trial_best"] = keep
    shallow["checkpoint_storage"]["save_trial_latest"] = 1
    folder = bench.new(shallow)
    outcome = bench.go(folder)
    assert outcome.best == folder.checkpoint(3).path  # the first of two that are equally good
    assert [checkpoint.steps for checkpoint in folder.checkpoints()] == kept


def test_a_run_leaves_directory_path_and_handlers_as_they_were(
    bench: Bench,
    shallow: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path.cwd(), list(sys.path)
    places: list[Path] = []
    folder = bench.new(shallow)

    def fail() -> None:
        places.append(Path.cwd())
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        bench.go(folder, Watcher(act_at=2, act=fail))
    assert places == [folder.code]
    assert (Path.cwd(), sys.path) == before


def test_a_run_works_from_a_relative_folder(
    shallow: dict[str, Any],
    tmp_path: Path,
    write_experiment: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shallow["entrypoint"] = shallow["entrypoint"].replace("trials.deep_gp", "natdgp.determined")
    shallow["searcher"]["max_length"] = {"batches": 1}
    folder = RunFolder.create(Path("runs/relative"))
    experiment = read_experiment(write_experiment(shallow))
    assert train(experiment, folder, Watcher()).best == folder.checkpoint(1).path
    assert {path.name for path in Path("runs/relative").iterdir()} == {
        "best",
        "checkpoints",
        "code",
        "metrics.jsonl",
        "tensorboard",
    }


@pytest.mark.parametrize("name", ["DeepGpTrial", "REPOSITORY_OF_NOTHING", "annotations"])
def test_a_class_that_is_no_trial_is_refused_with_those_there_are(
    shallow: dict[str, Any],
    tmp_path: Path,
    write_experiment: Callable[[dict[str, Any]], Path],
    name: str,
) -> None:
    shallow["entrypoint"] = shallow["entrypoint"].replace("DeepGPTrial", name)
    folder = new_run(read_experiment(write_experiment(shallow)), REPOSITORY, tmp_path / "run")
    with pytest.raises(FolderError) as raised:
        train(read_experiment(folder.config), folder, Watcher())
    told = f"names the trial trials.deep_gp:{name}, but {name} is no trial in trials.deep_gp"
    assert told in str(raised.value)
    assert str(raised.value).endswith("it has these: DeepGPTrial")
