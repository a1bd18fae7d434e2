"""What a model is made of besides its variables: the same variables may mean another function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.models.deep_gp import DeepGP

Structure = dict[str, Any]


def structure_of(deep_gp: DeepGP) -> Structure:
    """The class of every kernel, mean function, inducing variable and of the likelihood, with
    their constants, as plain values.
    """
    layers = [
        {
            "class": type(layer).__name__,
            "whiten": layer.whiten,
            "kernel": _described(layer.kernel),
            "mean_function": _described(layer.mean_function),
            "inducing_variable": _described(layer.inducing_variable),
        }
        for layer in deep_gp.f_layers
    ]
    return {"layers": layers, "likelihood": _described(deep_gp.gpflow_likelihood)}


def differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Every place in which the structure of a checkpoint's model is not one's own, in words."""
    theirs, ours = dict(_flat("", saved)), dict(_flat("", own))
    return [
        f"{name} is {ours.get(name, 'not there')}, but {theirs.get(name, 'not there')} in the "
        "checkpoint"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]


def _described(module: tf.Module) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(module).__name__}
    for name, value in vars(module).items():
        plain = name.lstrip("_")
        if isinstance(value, gpflow.Parameter) or name.startswith(("_tf_", "_self_", "_name")):
            continue
        if isinstance(value, (bool, int, float, str)):
            described[plain] = value
        elif isinstance(value, slice):
            described[plain] = str(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            described[plain] = value.tolist()
        elif isinstance(value, tf.Module):
            described[plain] = _described(value)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], tf.Module):
            described[plain] = [_described(one) for one in value]
    return described


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{path}[{number}]", inner)
    else:
        yield path, value
