"""A task's container off a cluster: its own mounts and processes, and Determined's real steps."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.image import ENVIRONMENT, Image
from tests.cluster.master import StandInMaster
from tests.cluster.submission import sample

ENTRYPOINT = Path(__file__).with_name("entrypoint.sh")
ISOLATE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Mounts of its own, and processes of its own that end with it: no task leaves one behind."""
INHERITED = ("PIP_", "SSL_", "REQUESTS_", "CURL_", "HTTP", "http", "NO_PROXY", "no_proxy", "TF_")
"""What a task takes over of the test's environment: how to reach packages, how much to log."""


@dataclass(frozen=True)
class Task:
    """A task that has ended."""

    exit_code: int
    log: str


@dataclass(frozen=True)
class Kill:
    """A kill -9 in the middle of a task."""

    after: int
    """Training steps that the master has heard of by then."""
    rank: int | None = None
    """Whose process it meets; all that are in the container if None."""


def why_not_here() -> str | None:
    """Why no container can be made on this machine, or None if it can."""
    try:
        tried = subprocess.run([*ISOLATE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "a task's container needs Linux and unshare (util-linux)"
    if os.geteuid() or tried.returncode:
        return f"a task's container needs root and namespaces: {tried.stderr.strip()}"
    return None


def basic_environment(image: Image, home: Path) -> dict[str, str]:
    """The environment of any process in the image."""
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(INHERITED)},
        "PATH": f"{image.bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }


def run_trial(
    image: Image,
    master: StandInMaster,
    folder: Path,
    *,
    hparams: Mapping[str, Any] | None = None,
    pause_after: int | None = None,
    kill: Kill | None = None,
    variables: Mapping[str, str] | None = None,
    timeout: float = 480.0,
) -> Task:
    """Run the master's trial in a container until it ends, from the latest checkpoint it reported.

    :param folder: the container's home, which is made; the task's log is kept there.
    :param hparams: in place of the configuration's own constant hyperparameters.
    :param pause_after: the training steps after which the master tells it to pause.
    :param kill: what is killed in the middle of it.
    :param variables: of the environment, as `environment.environment_variables` sets them.
    :raises TimeoutError: with the task's log, if it has not ended within `timeout` seconds.
    """
    folder.mkdir(parents=True)
    config = master.config
    run = master.begin_run(pause_after)
    latest = master.checkpoints[-1] if master.checkpoints else None
    environment = {
        **basic_environment(image, folder),
        **(variables or {}),
        "DET_MASTER": master.url,
        "DET_CLUSTER_ID": "bench",
        "DET_AGENT_ID": "agent",
        "DET_CONTAINER_ID": "container",
        "DET_RESOURCES_ID": "resources",
        "DET_RESOURCES_TYPE": "docker-container",
        "DET_SLOT_IDS": json.dumps(list(range(config["resources"]["slots_per_trial"]))),
        "DET_SESSION_TOKEN": "token",
        "DET_USER": "user",
        "DET_TASK_ID": "1.trial",
        "DET_TASK_TYPE": "TRIAL",
        "DET_ALLOCATION_ID": f"{uuid.uuid4()}.{run}",
        "DET_EXPERIMENT_ID": "1",
        "DET_EXPERIMENT_CONFIG": json.dumps(config),
        "DET_TRIAL_ID": "1",
        "DET_TRIAL_RUN_ID": str(run),
        "DET_TRIAL_SEED": str(config["reproducibility"]["experiment_seed"]),
        "DET_HPARAMS": json.dumps(hparams or sample(config["hyperparameters"])),
        "DET_STEPS_COMPLETED": str(latest.metadata["steps_completed"] if latest else 0),
    }
    if config["resources"]["slots_per_trial"] > 1:
        # Ranks talk on two ports of the host, which tests that run side by side must not share.
        with contextlib.ExitStack() as stack:
            for number in (1, 2):
                one = stack.enter_context(socket.socket())
                one.bind(("", 0))
                name = f"INTER_TRAIN_PROCESS_COMM_PORT_{number}"
                environment[name] = str(one.getsockname()[1])
    if latest is not None:
        environment["DET_LATEST_CHECKPOINT"] = latest.uuid

    # A container has a /tmp of its own, in which only these folders of the real one are seen.
    storage = config["checkpoint_storage"]["container_path"]
    needed = {str(path) for path in (image.folder, folder, storage, ENVIRONMENT, sys.base_prefix)}
    mounted = sorted(path for path in needed if path.startswith("/tmp/"))
    command = [*ISOLATE, "bash", str(ENTRYPOINT), *mounted]
    log = folder / "log"
    # A pipe, as in a container: ranks open /dev/stdout anew, and a file they would overwrite.
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as task:
        deadline = time.monotonic() + timeout
        output = None
        while output is None:
            try:
                output, _ = task.communicate(timeout=0.05)
            except subprocess.TimeoutExpired as error:
                if time.monotonic() > deadline:
                    task.kill()
                    log.write_bytes(error.output or b"")
                    said = log.read_text()
                    raise TimeoutError(f"not done in {timeout} s; its log:\n{said}") from error
                if kill is not None and master.steps_reported >= kill.after:
                    _victim(task, kill.rank).kill()
                    kill = None
    log.write_bytes(output)
    return Task(task.returncode, log.read_text())


def _victim(task: subprocess.Popen[bytes], rank: int | None) -> psutil.Process:
    whole = psutil.Process(task.pid)
    if rank is None:
        return whole
    family = whole.children(recursive=True)
    return [one for one in family if one.environ().get("HOROVOD_RANK") == str(rank)][-1]
