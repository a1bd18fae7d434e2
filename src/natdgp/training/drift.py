"""Whether all ranks hold the same parameters: by the second law they do, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.distributed.reducer import Reducer


class Drift(RuntimeError):
    """Ranks hold different parameters, so that they train different models."""


def check_drift(model: tf.keras.Model) -> None:
    """Compare a fingerprint of every parameter over all ranks; every rank has to call this.

    :param model: with a `reducer`, as natdgp's have; any other has one rank to know of.
    :raises Drift: on every rank, naming the first parameter that differs, if one does.
    """
    reducer: Reducer | None = getattr(model, "reducer", None)
    if reducer is None or reducer.size == 1:
        return
    names, variables = zip(*_named_variables(model), strict=True)
    fingerprints = tf.constant([_fingerprint(variable) for variable in variables], tf.int64)
    by_rank = reducer.gather(fingerprints).numpy()  # [K, V]
    different = np.flatnonzero(np.any(by_rank != by_rank[0], axis=0))
    if len(different):
        first = int(different[0])
        ranks = ", ".join(str(r) for r in np.flatnonzero(by_rank[:, first] != by_rank[0, first]))
        raise Drift(
            f"after step {int(model.step)}, {names[first]} on rank {ranks} is not what it is on "
            f"rank 0 ({len(different)} of {len(names)} parameters differ): a rank's gradients were "
            "not reduced, or something on it is random by itself; go on from the last checkpoint "
            "once that is mended"
        )


def _named_variables(model: tf.keras.Model) -> Iterator[tuple[str, tf.Variable]]:
    seen = set()
    for layer, name, parameter in named_parameters(model):
        seen.add(parameter.unconstrained_variable.ref())
        yield f"{layer}.{name}", parameter.unconstrained_variable
    for number, variable in enumerate(model.trainable_variables):
        if variable.ref() not in seen:
            yield f"variable {number} ({variable.name})", variable
    for number, variable in enumerate(model.optimizer.variables):
        yield f"Adam's variable {number} ({variable.name})", variable
    yield "the number of steps", model.step


def named_parameters(model: tf.keras.Model) -> Iterator[tuple[str, str, gpflow.Parameter]]:
    """GPflow's parameters of a model: the layer's name, the parameter's in it, and itself."""
    deep_gp = getattr(model, "deep_gp", None)
    modules = (
        {layer.name: layer for layer in model.layers}
        if deep_gp is None
        else {
            **{layer.name: layer for layer in deep_gp.f_layers},
            "likelihood": deep_gp.gpflow_likelihood,
        }
    )
    for layer, module in modules.items():
        for name, parameter in gpflow.utilities.parameter_dict(module).items():
            if not name.startswith("._"):  # Keras keeps its own lists of the same variables
                yield layer, name.lstrip("."), parameter


def _fingerprint(variable: tf.Variable) -> int:
    digest = hashlib.blake2b(variable.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
