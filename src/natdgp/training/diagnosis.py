"""Says in words why training broke down: which layer, and which setting is the likely cause."""

from __future__ import annotations

import re

import tensorflow as tf

from natdgp.models.noise import Stream
from natdgp.training.drift import named_parameters


class TrainingFailure(RuntimeError):
    """Training that these hyperparameters make impossible; the message says what to change."""


class BadBatch(ValueError):
    """A data loader gave numbers that are not finite; the message says which and where."""


_ASSERTION = re.compile(r"assertion failed: \[(.*?)\]", re.DOTALL)
_NO_MEMORY = re.compile("OOM when allocating|failed to allocate memory", re.IGNORECASE)


def explain_failure(model: tf.keras.Model, steps: int, message: str) -> str | None:
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


def explain_breakdown(model: tf.keras.Model, what: str) -> str:
    """Describe a non-finite figure.

    :param model: the model as the breakdown left it.
    :param what: what was seen, e.g. "loss is nan in the step after step 12".
    :returns: one sentence with the first layer that holds non-finite parameters, and the remedy.
    """
    wrong: dict[str, list[str]] = {}
    for layer, name, parameter in named_parameters(model):
        if not bool(tf.reduce_all(tf.math.is_finite(parameter))):
            wrong.setdefault(layer, []).append(name)
    for layer, names in wrong.items():
        return f"{what}: {layer} has non-finite {', '.join(names)}. {_remedy(model)}"
    if (activations := _wrong_activations(model)) is not None:
        return f"{what}, although all parameters are finite: {activations}"
    return (
        f"{what}, although all parameters are finite: the predictive density overflows or "
        f"underflows. {_remedy(model)}"
    )


def _wrong_activations(model: tf.keras.Model) -> str | None:
    """The first layer whose outputs are not finite at the inducing inputs of the first."""
    deep_gp = getattr(model, "deep_gp", None)
    if deep_gp is None:
        return None
    draws = deep_gp.noise.shared(Stream.EVALUATION, 1)
    try:
        F = tf.convert_to_tensor(deep_gp.f_layers[0].inducing_variable.inducing_variable.Z)[None]
        for index, layer in enumerate(deep_gp.f_layers):
            F, _ = layer.propagate(F, layer.posterior(), draws, index)
            if not bool(tf.reduce_all(tf.math.is_finite(F))):
                break
        else:
            return None
    except (AttributeError, tf.errors.InvalidArgumentError):  # other inducing variables; Cholesky
        return None
    return (
        f"outputs of {layer.name} are not, as its covariance matrix is too ill-conditioned for "
        f"{F.dtype.name}. Set hyperparameters.model.dtype to float64, or use fewer "
        "hyperparameters.model.inducing_points."
    )


def _remedy(model: tf.keras.Model) -> str:
    rate = float(model.optimizer.learning_rate)
    lengths = f"hyperparameters.adam.learning_rate (now {rate:g})"
    if natural := getattr(model, "natgrad_optimizers", None):
        gamma = float(natural[-1].current_gamma())
        lengths = f"hyperparameters.natural_gradient.gamma (now {gamma:g}) or {lengths}"
    return f"Lower {lengths}."
