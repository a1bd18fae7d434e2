"""A step length and a transformation as plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from gpflow.optimizers import XiNat, XiSqrtMeanVar, XiTransform

_TRANSFORMS = {transform.__name__: transform for transform in (XiNat, XiSqrtMeanVar)}

_VARIABLE = "tf.Variable"


def serialize_gamma(gamma: Any) -> Any:
    """A number as it is, a variable by value and type, a schedule as Keras does it."""
    if isinstance(gamma, tf.keras.optimizers.schedules.LearningRateSchedule):
        return tf.keras.optimizers.schedules.serialize(gamma)
    if isinstance(gamma, tf.Variable):
        config = {"value": float(gamma.numpy()), "dtype": gamma.dtype.name}
        return {"class_name": _VARIABLE, "config": config}
    return float(gamma() if callable(gamma) else gamma)


def deserialize_gamma(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """What :func:`serialize_gamma` was given; anything already made stays as it is."""
    if not isinstance(config, Mapping):
        return config
    if config["class_name"] == _VARIABLE:
        value, dtype = config["config"]["value"], config["config"]["dtype"]
        return tf.Variable(value, dtype=dtype, trainable=False, name="gamma")
    return tf.keras.optimizers.schedules.deserialize(config, custom_objects)


def serialize_transform(transform: XiTransform) -> str:
    """The name of its class: transformations hold no values."""
    if type(transform) in _TRANSFORMS.values():
        return type(transform).__name__
    return str(tf.keras.utils.get_registered_name(type(transform)))


def deserialize_transform(
    config: Any, custom_objects: Mapping[str, Any] | None = None
) -> XiTransform:
    """The transformation of a name; anything already made stays as it is.

    :raises ValueError: for a name that is neither GPflow's nor known to Keras.
    """
    if not isinstance(config, str):
        return config
    transform = tf.keras.utils.get_registered_object(config, custom_objects, _TRANSFORMS)
    if transform is None:
        raise ValueError(
            f"xi_transform is {config!r}, which is not known; pass its class in custom_objects or"
            " decorate it with tf.keras.utils.register_keras_serializable()"
        )
    return transform()
