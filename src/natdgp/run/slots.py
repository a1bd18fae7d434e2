"""How many processes a run is trained by, and what each of them may use of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from natdgp.settings.problems import SettingsError

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


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
