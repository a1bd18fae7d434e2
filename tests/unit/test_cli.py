from __future__ import annotations

import contextlib
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
from natdgp.run.devices import choose_device
from natdgp.run.rank import Orders
from natdgp.run.rank_channel import RankChannel
from natdgp.run.run_folder import RunFolder
from natdgp.settings import read_experiment

Write = Callable[[dict[str, Any]], Path]


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


def _main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse's way
        status = int(end.code or 0)
    screen = capsys.readouterr()
    return status, screen.out, screen.err


def _nothing_was_made() -> bool:
    return not list(Path.cwd().iterdir())


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(capsys, "--version") == (0, f"natdgp {natdgp.__version__}\n", "")


def test_help_names_every_command_and_the_way_to_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = _main(capsys, "--help")
    assert status == 0
    for name in ("train", "check", "--version", "det experiment create FILE ."):
        assert name in out


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (
            "train",
            [
                "FILE",
                "--resume",
                "--out",
                "--set",
                "--seed",
                "--slots",
                "--rank-timeout",
                "--device",
                "--no-progress",
            ],
        ),
        ("check", ["FILE"]),
    ],
)
def test_help_of_a_command_names_every_option_and_what_it_does(
    capsys: pytest.CaptureFixture[str], command: str, names: list[str]
) -> None:
    status, out, _ = _main(capsys, command, "--help")
    assert status == 0
    assert set(re.findall(r"^  (--[a-z-]+|-h|FILE)", out, re.MULTILINE)) == {"-h", *names}
    if command == "train":
        assert "runs/NAME" in out
        assert "gpu:N" in out


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _main(capsys)
    assert status == 2
    assert "COMMAND" in err


def test_check_says_which_files_are_valid(
    capsys: pytest.CaptureFixture[str], experiment: dict[str, Any], write_experiment: Write
) -> None:
    file = write_experiment(experiment)
    assert _main(capsys, "check", file) == (0, f"{file}: valid\n", "")


def test_check_lists_all_problems_of_all_files_and_fails(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    tmp_path: Path,
) -> None:
    good = write_experiment(experiment).rename(tmp_path / "good.yaml")
    experiment["hyperparameters"]["model"]["layers"] = 0
    experiment["scheduling_unit"] = "often"
    bad = write_experiment(experiment)
    missing = tmp_path / "missing.yaml"
    status, out, err = _main(capsys, "check", bad, missing, good)
    assert status == 1
    assert out == f"{good}: valid\n"
    assert "2 problems" in err
    for path in ("hyperparameters.model.layers", "scheduling_unit"):
        assert re.search(rf"^{re.escape(str(bad))}:\d+: {re.escape(path)}: received", err, re.M)
    assert f"{missing}: there is no such file" in err


@pytest.mark.parametrize("both", [False, True])
def test_train_wants_either_a_file_or_a_run(capsys: pytest.CaptureFixture[str], both: bool) -> None:
    arguments = ["e.yaml", "--resume", "runs/a"] if both else []
    status, _, err = _main(capsys, "train", *arguments)
    assert (status, err) == (2, "natdgp train: give either an experiment FILE or --resume DIR\n")
    assert _nothing_was_made()


@pytest.mark.parametrize("extra", [["--set", "a=1"], ["--seed", "0"], ["--out", "runs/b"]])
def test_a_run_is_resumed_in_its_own_terms(
    capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    status, _, err = _main(capsys, "train", "--resume", "runs/a", *extra)
    assert status == 2
    assert "in its own terms; --out, --set and --seed start a new one from FILE" in err


@pytest.mark.parametrize("device", ["nonsense", "cpu:0", "gpu:", "gpu:one", "auto:1", ""])
def test_a_device_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    device: str,
) -> None:
    status, _, err = _main(capsys, "train", write_experiment(experiment), "--device", device)
    assert status == 2
    assert f"--device: received {device!r}; must be auto, cpu, gpu or gpu:N" in err
    assert _nothing_was_made()


@pytest.mark.parametrize("device", ["gpu", "gpu:7"])
def test_a_gpu_that_is_not_there_is_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    status, _, err = _main(capsys, "train", write_experiment(experiment), "--device", device)
    assert status == 2
    assert (
        f"--device: received {device!r}; TensorFlow sees no such GPU\n    use --device cpu" in err
    )
    assert _nothing_was_made()


@pytest.mark.parametrize(("device", "visible"), [("cpu", "-1"), ("gpu:3", "3")])
def test_devices_are_chosen_before_tensorflow_sees_them(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
    choose_device(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_what_is_no_run_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _main(capsys, "train", "--resume", "runs/a")
    assert (status, err) == (
        2,
        "natdgp train: runs/a is not the folder of a run: it has no config.yaml\n",
    )


def test_a_missing_trial_is_told(
    capsys: pytest.CaptureFixture[str], experiment: dict[str, Any], write_experiment: Write
) -> None:
    experiment["entrypoint"] = experiment["entrypoint"].replace("natdgp.determined", "mine.deep_gp")
    status, _, err = _main(capsys, "train", write_experiment(experiment))
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
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    how: str,
    message: str,
) -> None:
    _corrupt(experiment, how)
    for _ in range(2):  # the same --out may be tried again
        status, _, err = _main(capsys, "train", write_experiment(experiment), "--out", "mine")
        assert status == 2
        assert err.startswith("natdgp train: ")
        assert message in err
        assert _nothing_was_made()


def test_too_few_rows_for_the_inducing_points_leave_the_folder_free(
    capsys: pytest.CaptureFixture[str], experiment: dict[str, Any], write_experiment: Write
) -> None:
    experiment["hyperparameters"]["model"]["inducing_points"] = 1000
    status, out, _ = _main(capsys, "train", write_experiment(experiment), "--out", "mine")
    assert status == 1
    assert "The run broke down: " in out
    assert "1000" in out
    assert _nothing_was_made()


def test_a_resumed_run_is_never_deleted(
    capsys: pytest.CaptureFixture[str], experiment: dict[str, Any], write_experiment: Write
) -> None:
    """Not even one that was killed before its first report."""
    folder = RunFolder.create(Path("mine"))
    write_experiment(experiment).rename(folder.config)
    _corrupt(experiment, "no file")
    status, _, err = _main(capsys, "train", "--resume", "mine")
    assert status == 2
    assert "no such file" in err
    assert folder.config.is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", '{"group": "training"\n', "metrics.jsonl, line 1: this is no JSON"),
        ("manifest.json", '{"seed": 0, "sess', "manifest.json: this is no JSON"),
    ],
)
def test_a_broken_file_of_a_run_that_goes_on_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    name: str,
    content: str,
    message: str,
) -> None:
    folder = RunFolder.create(Path("mine"))
    write_experiment(experiment).rename(folder.config)
    (folder.root / name).write_text(content)
    status, _, err = _main(capsys, "train", "--resume", "mine")
    assert status == 2
    assert err.startswith("natdgp train: ")
    assert message in err
    assert (folder.root / name).read_text() == content


@pytest.mark.parametrize("slots", ["1", "2"])
def test_a_second_command_in_a_folder_is_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
    slots: str,
) -> None:
    monkeypatch.setattr("natdgp.run.run_folder.PATIENCE", 0.0)
    folder = RunFolder.create(Path("mine"))
    write_experiment(experiment).rename(folder.config)
    with folder.occupied():
        before = {path: path.lstat().st_mtime_ns for path in folder.root.rglob("*")}
        status, out, err = _main(capsys, "train", "--resume", "mine", "--slots", slots)
        assert (status, out) == (2, "")
        assert err.startswith("natdgp train: mine is being trained by another command; ")
        before.pop(folder.lock)
        after = {path: path.lstat().st_mtime_ns for path in folder.root.rglob("*")}
        assert {path: after[path] for path in before} == before


def test_interrupting_before_there_is_a_run_is_no_crash(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("natdgp.run.run_session.train", interrupt)
    status, _, err = _main(capsys, "train", write_experiment(experiment), "--out", "mine")
    assert (status, err) == (130, "natdgp: interrupted\n")
    assert _nothing_was_made()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "missing.yaml: there is no such file"),
        (["{file}", "--set", "hyperparameters.model.layer=3"], "did you mean layers?"),
        (["{file}", "--set", "hyperparameters.model.layers"], "--set"),
        (["{file}", "--seed", "-1"], "reproducibility.experiment_seed: received -1"),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    arguments: list[str],
    message: str,
) -> None:
    file = write_experiment(experiment)
    status, _, err = _main(capsys, "train", *(each.format(file=file) for each in arguments))
    assert status == 2
    assert message in err
    assert _nothing_was_made()


def test_a_seed_and_fields_of_the_command_line_reach_the_run(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def look(_: object, folder: RunFolder, *__: object, live: bool, of_search: bool) -> int:
        seen.append((folder.shown, folder.config.read_text(), live))
        return 0

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", look)
    settings = ["--seed", "7", "--set", "hyperparameters.model.layers=3", "--no-progress"]
    status, _, _ = _main(capsys, "train", write_experiment(experiment), *settings)
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

    def watch(started: tuple[Orders, int], channel: RankChannel, limit: float) -> None:
        channel.conclude(note(RunFolder(Path(started[0].folder)), started[1]))

    monkeypatch.setattr(
        "natdgp.run.run_session.train_and_report", lambda _, folder, *__, **___: note(folder, 1)
    )
    monkeypatch.setattr(
        "natdgp.run.launch._started", lambda *these: contextlib.nullcontext(these[:2])
    )
    monkeypatch.setattr("natdgp.run.launch._watch", watch)
    monkeypatch.setattr(RunFolder, "discard_unless_begun", lambda _: None)
    return seen


def _see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"] * count)


@pytest.mark.parametrize(
    ("configured", "gpus", "arguments", "slots", "remark"),
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
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
    started: list[tuple[int, int]],
    configured: int,
    gpus: int,
    arguments: list[str],
    slots: int,
    remark: str,
) -> None:
    experiment["resources"] = {"slots_per_trial": configured}
    _see_gpus(monkeypatch, gpus)
    status, out, err = _main(capsys, "train", write_experiment(experiment), *arguments)
    assert (status, err, started) == (0, "", [(slots, slots)])
    assert out.startswith(remark)
    assert out.count("\n") == (1 if remark else 0)


def test_a_run_goes_on_with_other_slots_and_its_folder_says_so(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    started: list[tuple[int, int]],
) -> None:
    _main(capsys, "train", write_experiment(experiment), "--out", "mine")
    for arguments in (["--slots", "2"], ["--slots", "4"], [], []):
        status, out, _ = _main(capsys, "train", "--resume", "mine", *arguments)
        assert status == 0
    assert started == [(1, 1), (2, 2), (4, 4), (1, 1), (1, 1)]
    assert out == ""  # the folder says one slot by now, and so there is nothing to remark


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            3,
            "hyperparameters.global_batch_size: received 32; must be a multiple of resources.",
        ),
        (0, "resources.slots_per_trial: received 0; "),
        (-1, "resources.slots_per_trial: received -1; "),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_slots_that_cannot_share_a_batch_are_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    started: list[tuple[int, int]],
    slots: int,
    message: str,
    resumed: bool,
) -> None:
    run: list[object] = [write_experiment(experiment)]
    if resumed:
        _main(capsys, "train", *run, "--out", "mine")
        run = ["--resume", "mine"]
        started.clear()
    status, _, err = _main(capsys, "train", *run, "--slots", slots)
    assert status == 2
    assert message in err
    assert started == []
    assert resumed or _nothing_was_made()


def test_more_slots_than_gpus_are_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _see_gpus(monkeypatch, 1)
    status, _, err = _main(capsys, "train", write_experiment(experiment), "--slots", 2)
    assert status == 2
    assert "--slots: received 2; must not be more than this machine's GPUs, 1" in err
    assert "--device cpu" in err
    assert _nothing_was_made()


def test_a_checkpoint_damaged_while_a_run_trains_is_told_in_words(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_damage(*_: Any, **__: Any) -> int:
        raise DamagedCheckpoint("natdgp.json has 0 bytes; 2 were written")

    monkeypatch.setattr("natdgp.run.run_session.train_and_report", find_damage)
    status, out, err = _main(capsys, "train", write_experiment(experiment))
    assert (status, out) == (1, "")
    assert err == "natdgp train: natdgp.json has 0 bytes; 2 were written\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_rank_needs_some_time(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    seconds: str,
) -> None:
    status, _, err = _main(
        capsys, "train", write_experiment(experiment), f"--rank-timeout={seconds}"
    )
    assert status == 2
    assert f"--rank-timeout is {float(seconds)}, but must be above 0" in err
    assert _nothing_was_made()


def test_slots_without_horovod_are_refused(
    capsys: pytest.CaptureFixture[str],
    experiment: dict[str, Any],
    write_experiment: Write,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("natdgp.run.launch.has_horovod", lambda: False)
    status, _, err = _main(capsys, "train", write_experiment(experiment), "--slots", 2)
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
    experiment: dict[str, Any], write_experiment: Write, arguments: list[str]
) -> None:
    file = write_experiment(experiment)
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
