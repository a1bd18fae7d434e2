"""What Keras expects of an optimizer: a step length (`gamma`), and options not found here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from natdgp.natgrad.gpflow_private import GPflowNaturalGradient

Gamma = Any
"""float | tf.Variable | tf.Tensor | LearningRateSchedule | Callable[[], float | tf.Tensor]"""


_CLIP = (
    "process the gradients between compute_gradients and apply_gradients, or bound the step itself"
    " with max_kl"
)

_REMEDIES = {
    "learning_rate": "the length of its steps is gamma",
    "lr": "the length of its steps is gamma",
    "clipnorm": _CLIP,
    "clipvalue": _CLIP,
    "global_clipnorm": _CLIP,
}
"""What to do instead of setting what other Keras optimizers have."""


def refuse(options: Mapping[str, Any]) -> None:
    """:raises TypeError: for any option of other Keras optimizers, with what to do instead."""
    for option in options:
        remedy = _REMEDIES.get(option, "leave it out")
        raise TypeError(f"NaturalGradient has no {option}; {remedy}")


class KerasSurface(GPflowNaturalGradient):
    """GPflow's optimizer with a step length that can be set at any time."""

    _gamma: Gamma = None
    _is_traced = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _REMEDIES and value is not None:  # Keras' constructor sets them to None
            raise AttributeError(f"NaturalGradient has no {name}; {_REMEDIES[name]}")
        super().__setattr__(name, value)

    @property
    def learning_rate(self) -> Any:
        """Not there: a step has the length `gamma`."""
        raise AttributeError(f"NaturalGradient has no learning_rate; {_REMEDIES['learning_rate']}")

    @property
    def gamma(self) -> Gamma:
        """The step length: a variable, a schedule or a callable.

        A number, given or assigned, is the value of a variable, which is read at every step, in a
        tf.function traced before as well. Anything else can be assigned until a step was traced.

        :raises ValueError: for a number that is no step length.
        :raises TypeError: for an assignment that a traced step would not notice.
        """
        return self._gamma

    @gamma.setter
    def gamma(self, gamma: Gamma) -> None:
        now = self._gamma
        is_number = not isinstance(gamma, tf.Variable) and not callable(gamma)
        if is_number and not (tf.is_tensor(gamma) and not hasattr(gamma, "numpy")):
            gamma = float(gamma)
            if not 0 <= gamma < math.inf:
                raise ValueError(f"gamma is {gamma}; give a step length of 0 or more, such as 0.1")
            if isinstance(now, tf.Variable):
                now.assign(tf.cast(tf.constant(gamma, tf.float64), now.dtype))
                return
        if self._is_traced:
            raise TypeError(
                f"gamma is a {type(now).__name__}, which a traced step goes on reading; for another"
                " kind of gamma make a new optimizer, for another number give it a tf.Variable"
            )
        self._owns_gamma = isinstance(gamma, float)
        if self._owns_gamma:
            with tf.init_scope():
                gamma = tf.Variable(gamma, dtype=tf.float64, trainable=False, name="gamma")
        self._gamma = gamma

    def current_gamma(self, dtype: tf.DType | None = None) -> tf.Tensor:
        """The step length in force: at this iteration, or of this call.

        :param dtype: of the result; the step length's own by default.
        """
        self._is_traced = self._is_traced or tf.inside_function()
        gamma = self.gamma
        if isinstance(gamma, tf.keras.optimizers.schedules.LearningRateSchedule):
            gamma = gamma(self.iterations)
        elif callable(gamma):
            gamma = gamma()
        gamma = tf.convert_to_tensor(gamma, dtype_hint=dtype)
        return gamma if dtype is None else tf.cast(gamma, dtype)
