"""Natural gradients for any Keras model that is made of GPflux layers."""

from __future__ import annotations

from typing import Any

import gpflux
import tensorflow as tf

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.training.natural_steps import other_variables, step_naturally, variational_parameters


class NatGradWrapper(tf.keras.Model):
    """Wraps a Keras model, as GPflux's class of this name does, with this project's steps.

    Against GPflux's: step lengths refer to the whole ELBO, not to its mean over rows; natural
    gradients need no list of optimizers; and it works after a `NatGradModel` was built in the same
    process, which Keras then makes a functional model, and GPflux's wrapper with it. ::

        model = NatGradWrapper(base_model)
        model.compile(optimizer=tf.keras.optimizers.Adam(0.01), gamma=0.1)
        model.fit({"inputs": X, "targets": Y})
    """

    natgrad_layers = gpflux.optimization.NatGradModel.natgrad_layers
    natgrad_optimizers = gpflux.optimization.NatGradModel.natgrad_optimizers
    optimizer = gpflux.optimization.NatGradModel.optimizer

    def __init__(
        self, base_model: tf.keras.Model, natgrad_layers: list[gpflux.layers.GPLayer] | bool = True
    ) -> None:
        """:param base_model: a Keras model with GPflux layers.
        :param natgrad_layers: whose q(u) natural gradients train; True for all, False for none.
        """
        super().__init__()
        self.base_model = base_model
        if isinstance(natgrad_layers, bool):
            gp_layers = [one for one in base_model.layers if isinstance(one, gpflux.layers.GPLayer)]
            natgrad_layers = gp_layers if natgrad_layers else []
        self.natgrad_layers = natgrad_layers

    def call(self, data: Any, training: bool | None = None) -> Any:
        """What the base model makes of the data."""
        return self.base_model(data, training=training)

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer | str | list[Any] = "adam",
        *args: Any,
        gamma: Any = 0.1,
        **kwargs: Any,
    ) -> None:
        """As Keras'.

        :param optimizer: for all parameters but q(u) of `natgrad_layers`; or a list as GPflux's
            models take it: a `natdgp.NaturalGradient` for each of these layers, then that one.
        :param gamma: of the natural-gradient optimizers, where they are not given.
        :raises TypeError: if the list holds another natural-gradient optimizer, or another number.
        """
        layers = self.natgrad_layers
        if not isinstance(optimizer, list | tuple):
            other = tf.keras.optimizers.get(optimizer)
            optimizer = [*(NaturalGradient(gamma) for _ in layers), other]
        natural = optimizer[:-1]
        if len(natural) != len(layers) or not all(isinstance(o, NaturalGradient) for o in natural):
            kinds = ", ".join(type(one).__name__ for one in natural) or "none"
            raise TypeError(
                f"optimizer lists these before its last: {kinds}; give one natdgp.NaturalGradient"
                f" for each of the {len(layers)} natgrad_layers, or the last one alone"
            )
        super().compile(optimizer, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of all optimizers on one batch; returns Keras' metrics."""
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        layers = self.natgrad_layers
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        q_vars = [p.unconstrained_variable for p in variational_parameters(layers)]
        others = other_variables(self.trainable_variables, layers)
        gradients = tape.gradient(loss, q_vars + others)
        step_naturally(layers, self.natgrad_optimizers, gradients[: len(q_vars)])
        self.optimizer.apply_gradients(zip(gradients[len(q_vars) :], others, strict=True))
        metrics: dict[str, tf.Tensor] = self.compute_metrics(x, y, y_pred, sample_weight)
        return metrics
