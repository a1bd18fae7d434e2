"""Whether all ranks hold the same parameters: by the second law they do, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import gpflow
import numpy as np
import tensorflow as tf

from natdgp.training.model import NatGradModel


class Drift(RuntimeError):
    """Ranks hold different parameters, so that they train different models."""


def check_drift(model: NatGradModel) -> None:
    """Compare a fingerprint of every parameter over all ranks; every rank has to call this.

    :raises Drift: on every rank, naming the first parameter that differs, if one does.
    """
    if model.reducer.size == 1:
        return
    names, variables = zip(*_named_variables(model), strict=True)
    fingerprints = tf.constant([_fingerprint(variable) for variable in variables], tf.int64)
    by_rank = model.reducer.gather(fingerprints).numpy()  # [K, V]
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


def _named_variables(model: NatGradModel) -> Iterator[tuple[str, tf.Variable]]:
    for layer in (*model.deep_gp.f_layers, model.deep_gp.likelihood_layer):
        for name, parameter in gpflow.utilities.parameter_dict(layer).items():
            if not name.startswith("._"):  # Keras keeps its own lists of the same variables
                yield f"{layer.name}{name}", parameter.unconstrained_variable
    for number, variable in enumerate(model.optimizer.variables):
        yield f"Adam's variable {number} ({variable.name})", variable
    yield "the number of steps", model.step


def _fingerprint(variable: tf.Variable) -> int:
    digest = hashlib.blake2b(variable.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
