"""What a model is made of besides its variables: the same variables may mean another function."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

import gpflow
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from natdgp.models.deep_gp import DeepGP

Structure = dict[str, Any]


def structure_of(deep_gp: DeepGP) -> Structure:
    """The class of every kernel, mean function, inducing variable and of the likelihood, with
    their constants, as plain values.
    """
    layers = [
        {
            "class": type(layer).__name__,
            **{name: _part(part) for name, part in layer.parts().items()},
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


def _part(part: Any) -> Any:
    return _described(part) if isinstance(part, tf.Module) else part


def _described(module: tf.Module) -> dict[str, Any]:
    described: dict[str, Any] = {"class": _name(type(module))}
    for name, value in vars(module).items():
        plain = name.lstrip("_")
        if name.startswith(("_tf_", "_self_", "_name")):
            continue
        if isinstance(value, gpflow.Parameter):
            # Its value is a weight, saved as the transform's input.
            described[plain] = _transform(value.transform)
            continue
        if isinstance(value, (bool, int, float, str)):
            described[plain] = value
        elif isinstance(value, slice):
            described[plain] = str(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            described[plain] = value.tolist()
        elif isinstance(value, types.FunctionType):
            described[plain] = _name(value)
        elif isinstance(value, tf.Module):
            described[plain] = _described(value)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], tf.Module):
            described[plain] = [_described(one) for one in value]
    return described


def _transform(transform: tfp.bijectors.Bijector) -> str:
    """What a parameter's value is of what is saved: the bijectors, and where they shift to."""
    parts = getattr(transform, "bijectors", None) or [transform]
    shifts = [float(part.shift) for part in parts if isinstance(part, tfp.bijectors.Shift)]
    return " ".join([*(type(part).__name__ for part in parts), *map(str, shifts)])


def _name(thing: Any) -> str:
    """Of a class or a function; a user's own is told from ours and GPflow's by its module."""
    known = thing.__module__.partition(".")[0] in ("gpflow", "gpflux", "natdgp")
    return str(thing.__name__ if known else f"{thing.__module__}.{thing.__qualname__}")


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{path}[{number}]", inner)
    else:
        yield path, value
