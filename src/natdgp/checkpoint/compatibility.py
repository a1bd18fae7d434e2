"""Whether a checkpoint's variables are those of a model, field by field."""

from __future__ import annotations

from typing import Any, Final

from natdgp.checkpoint.record import ModelRecord, TaskRecord
from natdgp.checkpoint.structure import differences

_INITIAL: Final[Any] = {
    "kernel": {"variance", "lengthscale"},
    "likelihood": {"variance", "scale"},
    "inner_q_sqrt_scale": True,
    "num_samples": True,
}
"""What a model may start or be sampled with and still take over another one's parameters."""


def misfits(saved: ModelRecord, own: ModelRecord) -> list[str]:
    """Every field in which a checkpoint is of another model than one's own; none if it fits."""
    theirs, ours = _variables(saved), _variables(own)
    fields = [
        f"{name} is {_shown(ours.get(name))}, but {_shown(theirs.get(name))} in the checkpoint"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]
    if fields or saved.structure is None or own.structure is None:
        return fields
    return differences(saved.structure, own.structure)  # which the fields would explain


def other_data(saved: TaskRecord, own: TaskRecord) -> str | None:
    """How the rows differ from those that a checkpoint was trained on, if they do."""
    if saved.fingerprint == own.fingerprint:
        return None
    if saved.num_data != own.num_data:
        return f"there were {saved.num_data} training rows, and now there are {own.num_data}"
    return f"there are {own.num_data} training rows as before, but values in them changed"


def _variables(record: ModelRecord) -> dict[str, Any]:
    """All that the shapes and the meaning of a model's and its optimizers' variables hang on."""
    model = record.settings.model.model_dump(mode="json", exclude=_INITIAL)
    model["inducing_points"] = list(record.settings.model.inducing_points_per_layer)
    return {
        **_flat("hyperparameters.model", model),
        "what natural gradients train (layers)": list(record.settings.natural_gradient_layers),
        "data.features": list(record.task.features),
        "data.target": list(record.task.targets),
    }


def _flat(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        name: leaf
        for key, inner in value.items()
        for name, leaf in _flat(f"{path}.{key}", inner).items()
    }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
