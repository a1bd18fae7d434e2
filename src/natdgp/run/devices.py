"""Which of this machine's devices are used."""

from __future__ import annotations

import os
from collections.abc import Mapping

from natdgp.run.slots import threads_for
from natdgp.settings import SettingsError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def choose_device(device: str) -> None:
    """Hide what is not to be used, before TensorFlow is imported.

    :param device: auto, cpu, gpu, or gpu:N.
    :raises SettingsError: for another word, or a GPU that is not there.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        os.environ[VISIBLE] = "-1"
    elif kind == "gpu" and index.isdecimal():
        os.environ[VISIBLE] = index
    elif device not in ("auto", "gpu"):
        raise SettingsError.single(
            "--device", device, "must be auto, cpu, gpu or gpu:N", "name one of them"
        )
    if kind == "gpu" and not count_gpus():
        raise SettingsError.single(
            "--device", device, "TensorFlow sees no such GPU", "use --device cpu"
        )


def count_gpus() -> int:
    """How many GPUs TensorFlow sees, once :func:`choose_device` has been heard."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def shares_of(
    jobs: int, slots: int, gpus: int, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """Variables that give each of several runs, of so many slots each, devices of its own.

    :param gpus: how many TensorFlow sees; without any, the runs share the cores.
    :param environment: what the user has set.
    :raises SettingsError: if there are too few GPUs.
    """
    if gpus == 0:
        return [threads_for(jobs * slots, environment) if jobs > 1 else {}] * jobs
    if jobs * slots > gpus:
        raise SettingsError.single(
            "--jobs",
            jobs,
            f"trials of {slots} slot{'s' if slots > 1 else ''} each would need {jobs * slots} GPUs "
            f"of {gpus}",
            f"use --jobs {max(gpus // slots, 1)}, or search on the cores with --device cpu",
        )
    names = environment.get(VISIBLE, ",".join(map(str, range(gpus)))).split(",")
    return [{VISIBLE: ",".join(names[j * slots : (j + 1) * slots])} for j in range(jobs)]
