"""Says in words why training broke down: which layer, and which setting is the likely cause."""

from __future__ import annotations

import re

import gpflow
import tensorflow as tf

from natdgp.training.model import NatGradModel

_ASSERTION = re.compile(r"assertion failed: \[(.*?)\]", re.DOTALL)
_NO_MEMORY = re.compile("OOM when allocating|failed to allocate memory", re.IGNORECASE)


def explain_failure(model: NatGradModel, steps: int, message: str) -> str | None:
    """Describe a step whose numbers went wrong or found no memory, in one sentence with the remedy.

    :param model: the model as the failure left it.
    :param steps: training steps completed.
    :param message: of TensorFlow's InvalidArgumentError or ResourceExhaustedError.
    :returns: None if it is about another thing, such as shapes or a full disk.
    """
    what = f"the step after step {steps} failed"
    if found := _ASSERTION.search(message):
        return f"{what}: " + found[1].replace('\\"', '"')  # which names its own remedy
    if "Cholesky decomposition was not successful" in message:
        return f"{what}: a covariance matrix is not positive definite. {_remedy(model)}"
    if _NO_MEMORY.search(message):
        return (
            f"{what}: memory is exhausted ({message.splitlines()[0]}). Lower "
            "hyperparameters.global_batch_size, hyperparameters.model.inducing_points or "
            "hyperparameters.model.num_samples (in validation, hyperparameters.evaluation."
            "batch_size or hyperparameters.evaluation.num_samples)."
        )
    return None


def explain_breakdown(model: NatGradModel, what: str) -> str:
    """Describe a non-finite figure.

    :param model: the model as the breakdown left it.
    :param what: what was seen, e.g. "loss is nan in the step after step 12".
    :returns: one sentence with the first layer that holds non-finite parameters, and the remedy.
    """
    for layer in [*model.deep_gp.f_layers, model.deep_gp.likelihood_layer]:
        wrong = [
            name.lstrip(".")
            for name, parameter in gpflow.utilities.parameter_dict(layer).items()
            if not name.startswith("._")  # Keras keeps its own lists of the same variables
            and not bool(tf.reduce_all(tf.math.is_finite(parameter)))
        ]
        if wrong:
            place = _place(model, layer)
            return f"{what}: {place} has non-finite {', '.join(wrong)}. {_remedy(model)}"
    return (
        f"{what}, although all parameters are finite: the predictive density overflows or "
        f"underflows. {_remedy(model)}"
    )


def _place(model: NatGradModel, layer: tf.keras.layers.Layer) -> str:
    return "the likelihood" if layer is model.deep_gp.likelihood_layer else layer.name


def _remedy(model: NatGradModel) -> str:
    rate = float(model.optimizer.learning_rate)
    lengths = f"hyperparameters.adam.learning_rate (now {rate:g})"
    if model.natgrad_optimizers:
        gamma = float(model.natgrad_optimizers[0].gamma)
        lengths = f"hyperparameters.natural_gradient.gamma (now {gamma:g}) or {lengths}"
    return f"Lower {lengths}."
