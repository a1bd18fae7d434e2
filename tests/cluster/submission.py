"""What becomes of an experiment on its way to a task: the CLI's upload, the master's defaults."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from determined.common.context import read_v1_context

Config = Mapping[str, Any]


def pack(folder: Path, more: Mapping[str, str] | None = None, *, without: str = "") -> str:
    """The context directory as the CLI selects it (.detignore) and the master hands it out.

    :param more: texts of files beside those of the folder, by name.
    :param without: a folder in it that is left out.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file in read_v1_context(folder):
            if without and Path(file.path).parts[0] == without:
                continue
            content = base64.b64decode(file.content or "")
            member = tarfile.TarInfo(file.path)
            member.type = bytes([file.type])
            member.mode = file.mode & 0o7777
            member.mtime = int(file.mtime)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, text in (more or {}).items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return base64.b64encode(archive.getvalue()).decode()


def packed_files(context: str) -> list[str]:
    """The files, without the folders, of a packed context directory."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(context)), mode="r:gz") as tar:
        return sorted(member.name for member in tar.getmembers() if member.isfile())


def with_defaults(config: Config) -> dict[str, Any]:
    """The configuration as tasks see it: the master fills in what is not said."""
    filled = _merge(DEFAULTS, config)
    filled["hyperparameters"] = _explicit(config.get("hyperparameters", {}))
    return filled


def sample(hyperparameters: Config) -> dict[str, Any]:
    """The values of hyperparameters that are all constant, as the searcher `single` takes them."""
    values: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        if not isinstance(value, Mapping):
            values[name] = value
        elif "type" not in value:
            values[name] = sample(value)
        elif value["type"] == "const":
            values[name] = value["val"]
        else:
            raise ValueError(f"hyperparameter {name} is not constant: {value}")
    return values


def _explicit(hyperparameters: Config) -> dict[str, Any]:
    """Every bare value as the constant that it is short for."""
    explicit: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        if not isinstance(value, Mapping):
            explicit[name] = {"type": "const", "val": value}
        elif "type" in value:
            explicit[name] = value
        else:
            explicit[name] = _explicit(value)
    return explicit


def _merge(defaults: Config, config: Config) -> dict[str, Any]:
    merged = {**defaults, **config}
    for name in defaults.keys() & config.keys():
        if isinstance(defaults[name], Mapping) and isinstance(config[name], Mapping):
            merged[name] = _merge(defaults[name], config[name])
    return merged


DEFAULTS: Config = {
    "bind_mounts": [],
    "checkpoint_policy": "best",
    "checkpoint_storage": {
        "save_experiment_best": 0,
        "save_trial_best": 1,
        "save_trial_latest": 1,
    },
    "data": {},
    "debug": False,
    "description": "",
    "environment": {"environment_variables": {"cpu": [], "cuda": [], "rocm": []}},
    "labels": [],
    "log_policies": [],
    "max_restarts": 5,
    "min_checkpoint_period": {"batches": 0},
    "min_validation_period": {"batches": 0},
    "optimizations": {
        "aggregation_frequency": 1,
        "auto_tune_tensor_fusion": False,
        "average_aggregated_gradients": True,
        "average_training_metrics": True,
        "grad_updates_size_file": None,
        "gradient_compression": False,
        "mixed_precision": "O0",
        "tensor_fusion_cycle_time": 1,
        "tensor_fusion_threshold": 64,
    },
    "perform_initial_validation": False,
    "profiling": {
        "begin_on_batch": 0,
        "enabled": False,
        "end_after_batch": None,
        "sync_timings": True,
    },
    "project": "",
    "records_per_epoch": 0,
    "reproducibility": {"experiment_seed": 0},
    "resources": {
        "devices": [],
        "max_slots": None,
        "native_parallel": False,
        "priority": None,
        "resource_pool": "default",
        "shm_size": None,
        "slots_per_trial": 1,
        "weight": 1,
    },
    "scheduling_unit": 100,
    "searcher": {
        "smaller_is_better": True,
        "source_checkpoint_uuid": None,
        "source_trial_id": None,
    },
    "tensorboard_storage": None,
    "workspace": "",
}
