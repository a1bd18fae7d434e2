"""What a checkpoint says about its model: all that prediction needs besides the weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from natdgp.checkpoint.checksums import RECORD_NAME, DamagedCheckpoint, verify_checksums
from natdgp.data.prepare import Prepared
from natdgp.data.scaling import Scaling
from natdgp.models.builder import TaskShape
from natdgp.settings.schema import Settings

FORMAT = 2
"""Raised when a field changes its meaning; older formats stay readable."""

_STACK = (
    "natdgp",
    "tensorflow",
    "tensorflow-probability",
    "gpflow",
    "gpflux",
    "numpy",
    "determined",
)


class NewerFormat(ValueError):
    """A checkpoint that this natdgp is too old for."""


@dataclass(frozen=True)
class TaskRecord:
    """The facts of a prepared task that outlive its rows."""

    num_data: int
    """N, training rows."""
    features: tuple[str, ...]
    targets: tuple[str, ...]
    scaling: Scaling
    fingerprint: str
    """Of the rows, as :class:`natdgp.data.Prepared` has it."""

    @classmethod
    def of(cls, prepared: Prepared) -> TaskRecord:
        """Note the facts of prepared data."""
        return cls(
            len(prepared.train),
            prepared.features,
            prepared.targets,
            prepared.scaling,
            prepared.fingerprint,
        )

    @property
    def shape(self) -> TaskShape:
        """N, D and Q."""
        return TaskShape(self.num_data, len(self.features), len(self.targets))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; floats round-trip exactly."""
        return {
            "num_data": self.num_data,
            "features": list(self.features),
            "targets": list(self.targets),
            "scaling": self.scaling.to_dict(),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TaskRecord:
        """Inverse of :meth:`to_dict`.

        :raises ValueError: naming the field, for what no prepared data can have.
        """
        num_data = int(saved["num_data"])
        if not 0 < num_data < 2**53:  # so that its reciprocal is a float
            raise ValueError(f"num_data is {num_data}")
        features, targets = (_names(saved[field], field) for field in ("features", "targets"))
        for one in fields(Scaling):
            columns = features if one.name.startswith("x_") else targets
            _check_numbers(saved["scaling"][one.name], f"scaling.{one.name}", len(columns))
        return cls(
            num_data=num_data,
            features=features,
            targets=targets,
            scaling=Scaling.from_dict(saved["scaling"]),
            fingerprint=str(saved["fingerprint"]),
        )


@dataclass(frozen=True)
class ModelRecord:
    """Settings, task, seed, structure and versions of a trained model."""

    settings: Settings
    task: TaskRecord
    seed: int
    structure: dict[str, Any] | None = None
    """As :func:`natdgp.checkpoint.structure.structure_of` gives it; None in format 1."""

    def write(self, folder: Path) -> None:
        """Write `natdgp.json` into a checkpoint's folder."""
        content = {
            "format": FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "task": self.task.to_dict(),
            "seed": self.seed,
            "structure": self.structure,
            "versions": versions(),
        }
        (folder / RECORD_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def of_checkpoint(cls, folder: Path) -> ModelRecord:
        """Read the record of a checkpoint, all of whose files are as they were written.

        :raises FileNotFoundError: if the folder holds none.
        :raises DamagedCheckpoint: if they are not, or if no natdgp wrote it.
        :raises NewerFormat: if a newer natdgp wrote it.
        """
        if (folder / RECORD_NAME).is_file():
            verify_checksums(folder)
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> ModelRecord:
        """Read `natdgp.json` from a checkpoint's folder.

        :raises FileNotFoundError: if the folder holds none.
        :raises DamagedCheckpoint: if no natdgp wrote it.
        :raises NewerFormat: if a newer natdgp wrote it.
        """
        path = folder / RECORD_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not a natdgp checkpoint: it has no {RECORD_NAME}")
        try:
            saved = json.loads(path.read_bytes())
            newer = saved["format"] > FORMAT
            if not newer:
                return cls(
                    settings=Settings.model_validate(_of_this_version(saved["settings"])),
                    task=TaskRecord.from_dict(saved["task"]),
                    seed=int(saved["seed"]),
                    structure=saved.get("structure"),
                )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise DamagedCheckpoint(f"{path} is no record of a model: {error!r}") from error
        raise NewerFormat(
            f"{path} has format {saved['format']}, newer than {FORMAT}, the newest that "
            f"this natdgp reads; upgrade natdgp"
        )


def _of_this_version(settings: dict[str, Any]) -> dict[str, Any]:
    """Saved settings without the words of earlier versions."""
    natural_gradient = settings.get("natural_gradient", {})
    if natural_gradient.get("placement") != "auto":  # which chose one of the two; both train alike
        return settings
    return {**settings, "natural_gradient": {**natural_gradient, "placement": "replicated"}}


def _names(saved: Any, field: str) -> tuple[str, ...]:
    """:raises ValueError: unless they are texts, each another one."""
    texts = isinstance(saved, list) and all(isinstance(name, str) for name in saved)
    if not texts or not 0 < len(saved) == len({*saved}):
        raise ValueError(f"{field} is no list of different names: {reprlib.repr(saved)}")
    return tuple(saved)


def _check_numbers(saved: Any, field: str, columns: int) -> None:
    """:raises ValueError: unless there is a number for each column, above 0 where one divides."""
    divides = field.endswith("_std")
    try:
        values = np.array(saved, np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if (
        values.shape != (columns,)
        or not np.isfinite(values).all()
        or (divides and not (values > 0).all())
    ):
        kind = "numbers above 0" if divides else "numbers"
        raise ValueError(f"{field} is not {columns} finite {kind}: {reprlib.repr(saved)}")


def versions() -> dict[str, str]:
    """Versions of natdgp and of what is installed of the stack under it."""
    found = {}
    for name in _STACK:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
