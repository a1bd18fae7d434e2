from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.distributed.heartbeat import Pulse
from natdgp.run import launch
from natdgp.run.exchange import Exchange, Orders, Verdict
from natdgp.run.interruptions import handling
from natdgp.run.output import Output
from natdgp.run.run_folder import RunFolder

ORDERS = Orders("/runs/a", ["natdgp"], live=False, terminal=False, width=80)


def _quietly(_: str) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    return Exchange(tmp_path)


def _after(*said: str) -> Output:
    output = Output(_quietly, _quietly)
    output.feed("".join(f"{line}\n" for line in said).encode())
    return output


def test_a_rank_that_was_killed_is_told_with_its_last_lines(exchange: Exchange) -> None:
    output = _after("[1]<stderr>:out of memory", "Process 1 exit with status code 137.")
    assert launch._failure_report(output.first_to_fail, output, exchange, 2) == [
        "natdgp train: rank 1 of 2 was ended by SIGKILL before its first step; so all end",
        "out of memory",
    ]


def test_a_rank_that_failed_is_told_with_its_own_words_and_the_way_on(
    folder: RunFolder, exchange: Exchange
) -> None:
    exchange.fail(1, "Traceback\nValueError: mine\n")
    folder.checkpoint(8).path.mkdir()
    (folder.checkpoint(8).path / RECORD_NAME).touch()
    output = _after("[1]<stderr>:noise", "Process 1 exit with status code 1.")
    Pulse(exchange.root, 1).note(9)
    assert launch._failure_report(output.first_to_fail, output, exchange, 2) == [
        "natdgp train: rank 1 of 2 failed with exit status 1 after step 9; so all end",
        "Traceback",
        "ValueError: mine",
    ]
    assert launch._remedy(folder, 2) == [
        "Saved up to step 8. Go on with:",
        f"  natdgp train --resume {folder.root} --slots 2",
    ]


def test_a_launcher_that_failed_is_told_with_its_last_lines(exchange: Exchange) -> None:
    output = _after("ValueError: Gloo support has not been built.")
    report = launch._failure_report(None, output, exchange, 2)
    assert report[1:] == ["ValueError: Gloo support has not been built."]


def test_ports_are_free_and_different() -> None:
    first, second = launch.free_ports(2)
    assert first != second


@pytest.mark.parametrize("gpus", [False, True])
def test_ranks_share_cores_only_without_gpus(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch, gpus: bool
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert ("OMP_NUM_THREADS" in launch._environment(2, exchange, gpus)) is not gpus


def test_each_launch_has_ports_of_its_own(exchange: Exchange) -> None:
    names = [f"INTER_TRAIN_PROCESS_COMM_PORT_{n}" for n in (1, 2)]
    ports = [launch._environment(2, exchange, False)[name] for _ in range(2) for name in names]
    assert len(set(ports)) == 4


def test_the_exchange_goes_when_the_run_ends() -> None:
    with launch._exchange(ORDERS) as exchange:
        assert exchange.orders == ORDERS
    assert not exchange.root.exists()


def test_sockets_in_the_exchange_have_paths_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that of the folder for temporary files is."""
    long = tmp_path / (80 * "x")
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with launch._exchange(ORDERS) as exchange:
        path = f"{exchange.root}/ipc12345678/pull.sock"
        with socket.socket(socket.AF_UNIX) as one:
            Path(path).parent.mkdir()
            one.bind(path)
    monkeypatch.setattr(tempfile, "tempdir", (short := tempfile.mkdtemp(dir="/tmp")))
    with launch._exchange(ORDERS) as exchange:
        assert exchange.root.parent == Path(short)
    Path(short).rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(
    exchange: Exchange, number: signal.Signals
) -> None:
    exchange.heed(True)
    before = signal.getsignal(number)
    end = KeyboardInterrupt if number == signal.SIGINT else SystemExit

    def twice() -> None:
        with handling(launch._asking(exchange)):
            signal.raise_signal(number)
            assert exchange.asked is number
            signal.raise_signal(number)

    with pytest.raises(end):
        twice()
    assert signal.getsignal(number) == before


def test_a_signal_before_there_is_anything_to_save_ends(exchange: Exchange) -> None:
    def once() -> None:
        with handling(launch._asking(exchange)):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        once()
    assert exchange.asked is None


ASLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = (
    "import os, subprocess, sys, time; "
    f"subprocess.Popen({ASLEEP!r}, start_new_session=True); "
    "print('[0]<stdout>:ready', flush=True); time.sleep(60)"
)


def test_leaving_a_launch_leaves_no_process(exchange: Exchange) -> None:
    environment = dict(os.environ)
    with launch._launched([sys.executable, "-c", PARENT], environment) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"[0]<stdout>:ready\n"
        family = psutil.Process(launcher.pid).children(recursive=True)
        assert len(family) == 1
    assert launcher.returncode == -signal.SIGKILL
    running = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert running == []


def _launch(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_watching_ends_with_the_output(exchange: Exchange) -> None:
    output = _after()
    with _launch("print('[1]<stderr>:done', end='')") as launcher:
        launch._watch(launcher, output, exchange, 2, 60)
    assert output.tail(1) == ["done"]


def test_watching_ends_with_the_first_rank_that_fails(exchange: Exchange) -> None:
    said = "print('Process 1 exit with status code 1.', flush=True)"
    with _launch(f"import time; {said}; time.sleep(60)") as launcher:
        launch._watch(launcher, output := _after(), exchange, 2, 60)
        assert launcher.poll() is None
        launcher.kill()
    assert output.first_to_fail is not None


def test_watching_ends_with_a_rank_that_stalls(exchange: Exchange) -> None:
    for rank in (0, 1):
        pulse = Pulse(exchange.root, rank)
        for _ in range(4 + rank):
            pulse.note(7)
    with _launch("import time; time.sleep(60)") as launcher:
        stall = launch._watch(launcher, _after(), exchange, 2, 1.0)
        assert launcher.poll() is None
        launcher.kill()
    assert stall is not None
    assert launch._failure_report(stall, _after(), exchange, 2) == [
        "natdgp train: of 2 ranks, rank 0 made no progress for 1 s after step 7; so all end"
    ]


def test_ranks_that_do_not_end_after_the_verdict_are_waited_for_in_vain_only_so_long(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    exchange.conclude(Verdict())
    with _launch("import time; time.sleep(60)") as launcher:
        launch._watch(launcher, _after(), exchange, 2, 60)
        assert launcher.poll() is None
        launcher.kill()
