"""Says in words why training broke down: which layer, and which setting is the likely cause."""

from __future__ import annotations

import gpflow
import tensorflow as tf

from natdgp.training.model import NatGradModel


def explain_breakdown(model: NatGradModel, what: str) -> str:
    """Describe a non-finite figure.

    :param model: the model as the breakdown left it.
    :param what: what was seen, e.g. "loss is nan at step 12".
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
