from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tensorflow as tf

import natdgp
from natdgp import cli
from natdgp.checkpoint.checksums import DamagedCheckpoint
from natdgp.distributed.rank_channel import RankChannel
from natdgp.run.devices import choose_device
from natdgp.run.run_folder import RunFolder
from natdgp.settings import read_experiment

Run = Callable[..., tuple[int, str, str]]
"""Runs a command; returns exit status, standard output and standard error."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder, and leave nothing set in this process."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(cli, "silence_the_stack", lambda: None)


@pytest.fixture
def experiment(small_experiment: dict[str, Any]) -> dict[str, Any]:
    """An experiment whose trial is installed."""
    entrypoint = small_experiment["entrypoint"].replace("trials.deep_gp", "natdgp.determined")
    return {**small_experiment, "entrypoint": entrypoint}


@pytest.fixture
def write(
    experiment: dict[str, Any], write_experiment: Callable[[dict[str, Any]], Path]
) -> Callable[[], Path]:
    """Writes the experiment, as it is by then, to a file."""
    return lambda: write_experiment(experiment)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command with arguments."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way
            status = int(end.code or 0)
        screen = capsys.readouterr()
        return status, screen.out, screen.err

    return run


@pytest.fixture
def train(command: Run, write: Callable[[], Path]) -> Run:
    """Trains the experiment with options."""
    return lambda *options: command("train", write(), *options)


@pytest.fixture
def mine(write: Callable[[], Path]) -> RunFolder:
    """The folder `mine`, of a run that has reported nothing yet."""
    folder = RunFolder.create(Path("mine"))
    write().rename(folder.config)
    return folder


def _nothing_was_made() -> bool:
    return not list(Path.cwd().iterdir())


def _see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"] * count)


def test_version_is_told(command: Run) -> None:
    assert command("--version") == (0, f"natdgp {natdgp.__version__}\n", "")


def test_help_names_every_command_and_the_way_to_a_cluster(command: Run) -> None:
    status, out, _ = command("--help")
    assert status == 0
    for name in ("train", "check", "--version", "det experiment create FILE ."):
        assert name in out


OPTIONS = "--resume --out --set --seed --slots --rank-timeout --device --no-progress"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("train", OPTIONS.split(), ["runs/NAME", "gpu:N"]), ("check", [], [])],
)
def test_help_of_a_command_names_every_option_and_what_it_does(
    command: Run, name: str, options: list[str], words: list[str]
) -> None:
    status, out, _ = command(name, "--help")
    assert status == 0
    found = set(re.findall(r"^  (--[a-z-]+|-h|FILE)", out, re.MULTILINE))
    assert found == {"-h", "FILE", *options}
    assert all(word in out for word in words)


def test_a_command_is_required(command: Run) -> None:
    status, _, err = command()
    assert status == 2
    assert "COMMAND" in err


def test_check_lists_all_problems_of_all_files_and_says_which_are_valid(
    command: Run, experiment: dict[str, Any], write: Callable[[], Path], tmp_path: Path
) -> None:
    good = write().rename(tmp_path / "good.yaml")
    assert command("check", good) == (0, f"{good}: valid\n", "")
    experiment["hyperparameters"]["model"]["layers"] = 0
    experiment["scheduling_unit"] = "often"
    bad = write()
    missing = tmp_path / "missing.yaml"
    status, out, err = command("check", bad, missing, good)
    assert status == 1
    assert out == f"{good}: valid\n"
    assert "2 problems" in err
    for path in ("hyperparameters.model.layers", "scheduling_unit"):
        assert re.search(rf"^{re.escape(str(bad))}:\d+: {re.escape(path)}: received", err, re.M)
    assert f"{missing}: there is no such file" in err


OWN_TERMS = "in its own terms; --out, --set and --seed start a new one from FILE\n"
EITHER = "natdgp train: give either an experiment FILE or --resume DIR\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], EITHER),
        (["{file}", "--resume", "runs/a"], EITHER),
        (["--resume", "runs/a", "--set", "a=1"], OWN_TERMS),
        (["--resume", "runs/a", "--seed", "0"], OWN_TERMS),
        (["--resume", "runs/a", "--out", "runs/b"], OWN_TERMS),
        (["--resume", "runs/a"], "train: runs/a is not the folder of a run: it has no config.yaml"),
        (["missing.yaml"], "missing.yaml: there is no such file"),
        (["{file}", "--set", "hyperparameters.model.layer=3"], "did you mean layers?"),
        (["{file}", "--set", "hyperparameters.model.layers"], "--set"),
        (["{file}", "--seed", "-1"], "reproducibility.experiment_seed: received -1"),
        (["{file}", "--rank-timeout=0"], "--rank-timeout is 0.0, but must be above 0"),
        (["{file}", "--rank-timeout=-1"], "--rank-timeout is -1.0, but must be above 0"),
        (["{file}", "--rank-timeout=nan"], "--rank-timeout is nan, but must be above 0"),
        *(
            (
                ["{file}", "--device", word],
                f"--device: received {word!r}; must be auto, cpu, gpu or ",
            )
            for word in ("nonsense", "cpu:0", "gpu:", "gpu:one", "auto:1", "")
        ),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_made(
    command: Run, write: Callable[[], Path], arguments: list[str], message: str
) -> None:
    file = write()
    status, _, err = command("train", *(each.format(file=file) for each in arguments))
    assert status == 2
    assert message in err
    assert _nothing_was_made()


@pytest.mark.parametrize("device", ["gpu", "gpu:7"])
def test_a_gpu_that_is_not_there_is_refused(
    train: Run, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    _see_gpus(monkeypatch, 0)
    status, _, err = train("--device", device)
    assert status == 2
    told = f"--device: received {device!r}; TensorFlow sees no such GPU\n    use --device cpu"
    assert told in err
    assert _nothing_was_made()


@pytest.mark.parametrize(("device", "visible"), [("cpu", "-1"), ("gpu:3", "3")])
def test_devices_are_chosen_before_tensorflow_sees_them(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str
) -> None:
    _see_gpus(monkeypatch, 1)
    choose_device(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_a_missing_trial_is_told(train: Run, experiment: dict[str, Any]) -> None:
    experiment["entrypoint"] = experiment["entrypoint"].replace("natdgp.determined", "mine.deep_gp")
    status, _, err = train()
    assert status == 2
    assert f"there is no {Path.cwd()}/mine/deep_gp.py; run the command from the folder" in err
    assert _nothing_was_made()


def _corrupt(experiment: dict[str, Any], how: str) -> None:
    path = Path(experiment["data"]["path"])
    if how == "no file":
        path.unlink()
    elif how == "no column":
        experiment["data"]["target"] = ["z"]
    elif how == "nan":
        table = pl.read_csv(path)
        table.with_row_index("row").with_columns(
            y=pl.when(pl.col("row") == 6).then(float("nan")).otherwise(pl.col("y"))
        ).drop("row").write_csv(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no file", "waves.csv: no such file"),
        ("no column", "no column 'z'; "),
        ("nan", "column 'y', line 8: 'NaN' is missing or not finite"),
    ],
)
def test_bad_data_are_one_message_and_leave_the_folder_free(
    train: Run, experiment: dict[str, Any], how: str, message: str
) -> None:
    _corrupt(experiment, how)
    for _ in range(2):  # the same --out may be tried again
        status, _, err = train("--out", "mine")
        assert status == 2
        assert err.startswith("natdgp train: ")
        assert message in err
        assert _nothing_was_made()


def test_too_few_rows_for_the_inducing_points_leave_the_folder_free(
    train: Run, experiment: dict[str, Any]
) -> None:
    experiment["hyperparameters"]["model"]["inducing_points"] = 1000
    status, out, _ = train("--out", "mine")
    assert status == 1
    assert "The run broke down: " in out
    assert "1000" in out
    assert _nothing_was_made()


def test_a_resumed_run_is_never_deleted(
    command: Run, experiment: dict[str, Any], mine: RunFolder
) -> None:
    """Not even one that was killed before its first report."""
    _corrupt(experiment, "no file")
    status, _, err = command("train", "--resume", "mine")
    assert status == 2
    assert "no such file" in err
    assert mine.config.is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", '{"group": "training"\n', "metrics.jsonl, line 1: this is no JSON"),
        ("manifest.json", '{"seed": 0, "sess', "manifest.json: this is no JSON"),
    ],
)
def test_a_broken_file_of_a_run_that_goes_on_is_told_without_a_traceback(
    command: Run, mine: RunFolder, name: str, content: str, message: str
) -> None:
    (mine.root / name).write_text(content)
    status, _, err = command("train", "--resume", "mine")
    assert status == 2
    assert err.startswith("natdgp train: ")
    assert message in err
    assert (mine.root / name).read_text() == content


@pytest.mark.parametrize("slots", ["1", "2"])
def test_a_second_command_in_a_folder_is_refused(
    command: Run, mine: RunFolder, monkeypatch: pytest.MonkeyPatch, slots: str
) -> None:
    monkeypatch.setattr("natdgp.run.run_folder.PATIENCE", 0.0)
    with mine.occupied():
        before = {path: path.lstat().st_mtime_ns for path in mine.root.rglob("*")}
        status, out, err = command("train", "--resume", "mine", "--slots", slots)
        assert (status, out) == (2, "")
        assert err.startswith("natdgp train: mine is being trained by another command; ")
        before.pop(mine.lock)
        after = {path: path.lstat().st_mtime_ns for path in mine.root.rglob("*")}
        assert {path: after[path] for path in before} == before


def test_interrupting_before_there_is_a_run_is_no_crash(
    train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("natdgp.run.run_session.train", interrupt)
    status, _, err = train("--out", "mine")
    assert (status, err) == (130, "natdgp: interrupted\n")
    assert _nothing_was_made()


def test_a_checkpoint_damaged_while_a_run_trains_is_told_in_words(
    train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_damage(*_: Any, **__: Any) -> int:
        raise DamagedCheckpoint("natdgp.json has 0 bytes; 2 were written")

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", find_damage)
    told = "natdgp train: natdgp.json has 0 bytes; 2 were written\n"
    assert train() == (1, "", told)


def test_a_seed_and_fields_of_the_command_line_reach_the_run(
    train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def look(_: object, folder: RunFolder, *__: object, live: bool, of_search: bool) -> int:
        seen.append((folder.shown, folder.config.read_text(), live))
        return 0

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", look)
    status, _, _ = train("--seed", 7, "--set", "hyperparameters.model.layers=3", "--no-progress")
    assert status == 0
    ((shown, config, live),) = seen
    assert (shown, live) == (Path("runs/waves"), False)
    assert "experiment_seed: 7" in config
    assert "layers: 3" in config


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Instead of training: slots of the runs started, as asked for and as their folder has it."""
    seen: list[tuple[int, int]] = []

    def note(folder: RunFolder, slots: int) -> int:
        seen.append((slots, read_experiment(folder.config).slots))
        return 0

    def watch(started: tuple[list[str], int], channel: RankChannel, limit: float) -> None:
        (*_, orders), slots = started
        channel.conclude(note(RunFolder(Path(json.loads(orders)["folder"])), slots))

    monkeypatch.setattr(
        "natdgp.run.run_session.train_and_report", lambda _, folder, *__, **___: note(folder, 1)
    )
    monkeypatch.setattr(
        "natdgp.run.launch.started", lambda *these: contextlib.nullcontext(these[:2])
    )
    monkeypatch.setattr("natdgp.run.launch.watch", watch)
    monkeypatch.setattr(RunFolder, "discard_unless_begun", lambda _: None)
    return seen


@pytest.mark.parametrize(
    ("configured", "gpus", "options", "slots", "remark"),
    [
        (1, 0, [], 1, ""),
        (1, 4, [], 1, ""),
        (2, 2, [], 2, ""),
        (2, 0, [], 1, "resources.slots_per_trial is 2, but this machine has no GPU: "),
        (4, 2, [], 1, "resources.slots_per_trial is 4, but this machine has 2 GPUs: "),
        (1, 0, ["--slots", "2"], 2, ""),
        (4, 4, ["--slots", "2"], 2, ""),
        (4, 0, ["--slots", "1"], 1, ""),
    ],
)
def test_slots_are_the_files_where_there_are_gpus_or_those_asked_for(
    train: Run,
    experiment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    started: list[tuple[int, int]],
    configured: int,
    gpus: int,
    options: list[str],
    slots: int,
    remark: str,
) -> None:
    experiment["resources"] = {"slots_per_trial": configured}
    _see_gpus(monkeypatch, gpus)
    status, out, err = train(*options)
    assert (status, err, started) == (0, "", [(slots, slots)])
    assert out.startswith(remark)
    assert out.count("\n") == (1 if remark else 0)


def test_a_run_goes_on_with_other_slots_and_its_folder_says_so(
    command: Run, train: Run, started: list[tuple[int, int]]
) -> None:
    train("--out", "mine")
    for options in (["--slots", "2"], ["--slots", "4"], [], []):
        status, out, _ = command("train", "--resume", "mine", *options)
        assert status == 0
    assert started == [(1, 1), (2, 2), (4, 4), (1, 1), (1, 1)]
    assert out == ""  # the folder says one slot by now, and so there is nothing to remark


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (3, "hyperparameters.global_batch_size: received 32; must be a multiple of resources."),
        (0, "resources.slots_per_trial: received 0; "),
        (-1, "resources.slots_per_trial: received -1; "),
    ],
)
def test_slots_that_cannot_share_a_batch_are_refused(
    command: Run, train: Run, started: list[tuple[int, int]], slots: int, message: str
) -> None:
    status, _, err = train("--slots", slots)
    assert status == 2
    assert message in err
    assert _nothing_was_made()
    train("--out", "mine")
    started.clear()
    status, _, err = command("train", "--resume", "mine", "--slots", slots)
    assert status == 2
    assert message in err
    assert started == []


def test_more_slots_than_gpus_are_refused(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _see_gpus(monkeypatch, 1)
    status, _, err = train("--slots", 2)
    assert status == 2
    assert "--slots: received 2; must not be more than this machine's GPUs, 1" in err
    assert "--device cpu" in err
    assert _nothing_was_made()


def test_slots_without_horovod_are_refused(train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natdgp.run.launch.has_horovod", lambda: False)
    status, _, err = train("--slots", 2)
    assert status == 2
    assert "--slots: received 2; needs Horovod" in err
    assert "scripts/build-horovod" in err
    assert _nothing_was_made()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["train", "--help"],
        ["check", "{file}"],
        ["search", "--help"],
        ["train", "none.yaml"],
        ["search", "none.yaml"],
    ],
    ids=" ".join,
)
def test_tensorflow_is_not_imported_for_a_quick_answer(
    write: Callable[[], Path], arguments: list[str]
) -> None:
    file = write()
    script = (
        "import sys\n"
        "from natdgp.cli import main\n"
        "try:\n"
        f"    main({[each.format(file=file) for each in arguments]!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'natdgp' in sys.modules\n"
        "assert not {'tensorflow', 'determined', 'gpflow'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
