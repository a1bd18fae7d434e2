"""How many processes a run is trained by, and what each of them may use of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from natdgp.settings import SettingsError

VISIBLE = "CUDA_VISIBLE_DEVICES"

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


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


def use_gpu_of(rank: int) -> None:
    """Have this process use one GPU, if there are any, and no more of its memory than it needs."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[rank], True)


def choose_slots(asked: int | None, configured: int, gpus: int) -> tuple[int, str | None]:
    """The number of processes, and a line about it where it is not what the file says.

    :param asked: `--slots`, if it was given.
    :param configured: `resources.slots_per_trial`.
    :param gpus: how many of this machine's GPUs TensorFlow sees.
    :raises SettingsError: if slots were asked for and some of them would have no GPU.
    """
    if asked is None:
        if configured == 1 or gpus >= configured:
            return configured, None
        machine = f"this machine has {gpus or 'no'} GPU{'s' if gpus > 1 else ''}"
        return 1, (
            f"resources.slots_per_trial is {configured}, but {machine}: training in one process; "
            f"--slots {configured} asks for {configured}"
        )
    if 0 < gpus < asked:
        raise SettingsError.single(
            "--slots",
            asked,
            f"must not be more than this machine's GPUs, {gpus}, as each slot takes one",
            f"use --slots {gpus}, or train on the cores with --device cpu",
        )
    return asked, None


def threads_for(slots: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give each of several processes its share of the cores.

    :param environment: what the user has set; that stays.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    share = str(max(cores // slots, 1))
    return {name: share for name in THREADS if name not in environment}


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
