"""The optimizer: GPflow's `NaturalGradient`, several times faster, that does not fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import gpflow
import tensorflow as tf
from gpflow.optimizers import XiNat, XiTransform

from natdgp.natgrad.gpflow_private import gpflow_step
from natdgp.natgrad.keras_surface import Gamma, KerasSurface, refuse
from natdgp.natgrad.parameters import are_finite, assign, constrained_gradient
from natdgp.natgrad.safeguards import SafeStep, SafeStepFunction, numbers_of
from natdgp.natgrad.serialization import (
    deserialize_gamma,
    deserialize_transform,
    serialize_gamma,
    serialize_transform,
)
from natdgp.natgrad.step_choice import PositiveDefinite, has_closed_form, step_function

Parameters = (
    tuple[gpflow.Parameter, gpflow.Parameter]
    | tuple[gpflow.Parameter, gpflow.Parameter, XiTransform]
)
"""(q_mu, q_sqrt), or (q_mu, q_sqrt, transformation)."""

ParametersOrCall = Sequence[Parameters] | Callable[[], Sequence[Parameters]]

QGradients = tuple[tf.Tensor, tf.Tensor]
"""Of q_mu and q_sqrt, with respect to their unconstrained variables."""

DEFAULT_MAX_REFUSED = 100
"""Non-finite gradients in a row before training stops."""

XI_NAT = XiNat()

COUNTS = ("taken", "corrected", "shortened", "refused")
"""What becomes of a step of one latent GP."""


@tf.keras.utils.register_keras_serializable("natdgp")
class NaturalGradient(KerasSurface):
    """Natural-gradient descent on q(u) = N(q_mu, q_sqrt q_sqrt').

    A drop-in for `gpflow.optimizers.NaturalGradient`, in GPflux's models too: the same constructor,
    the same `minimize`, the same step wherever GPflow's succeeds, in closed form. Besides:

    - a step that would leave the Gaussians is not an exception (`positive_definite`);
    - the length of a step may be bounded (`max_kl`);
    - gradients that are not finite change nothing, and are counted;
    - a diagonal q(u), q_sqrt [M, P] (standard deviations), is stepped as well;
    - gradients may be taken out, processed and put back, as with other Keras optimizers::

        pairs = optimizer.compute_gradients(loss, [(q_mu, q_sqrt)])
        optimizer.apply_gradients([(clip(gradients), q) for gradients, q in pairs])

    Transformations other than XiNat and XiSqrtMeanVar take GPflow's own step: its cost, its
    exceptions, no trust region, no diagonal q(u).

    Under jit_compile XLA leaves out assertions: a step that should raise is refused and counted.
    """

    def __init__(
        self,
        gamma: Gamma = None,
        xi_transform: XiTransform = XI_NAT,
        name: str | None = None,
        *,
        positive_definite: PositiveDefinite = "fallback",
        max_kl: float | None = None,
        max_refused: int = DEFAULT_MAX_REFUSED,
        **unsupported: Any,
    ) -> None:
        """:param gamma: the step length: a number, a tf.Variable, a Keras schedule (a function of
            `iterations`) or a callable without arguments.
        :param xi_transform: the parameters the step is straight in; `minimize` and
            `apply_gradients` may override it for each q(u).
        :param name: of the optimizer.
        :param positive_definite: for XiNat, what to do where the exact step leads to no Gaussian,
            as a long step on a loss that is not convex does: `exact` raises, as GPflow does;
            `fallback` shortens the steps of latent GPs whose exact step would fail; `guaranteed`
            those as well by which a variance would grow to more than twice its size
            (:func:`natdgp.natgrad.steps.guaranteed_natural_step`).
        :param max_kl: the largest KL(q_new || q_old) of a step, for each latent GP; a step that
            goes further is shortened. None for no bound.
        :param max_refused: how many non-finite gradients in a row stop the training.
        :param unsupported: options of other Keras optimizers, to be told what to do instead.
        :raises ValueError: for a value that means nothing.
        :raises TypeError: for an option that this optimizer does not have, or want of gamma.
        """
        refuse(unsupported)
        if gamma is None:
            raise TypeError("NaturalGradient needs gamma, the step length, such as 0.1")
        super().__init__(gamma, xi_transform, name)
        if positive_definite not in get_args(PositiveDefinite):
            allowed = ", ".join(repr(a) for a in get_args(PositiveDefinite))
            raise ValueError(f"positive_definite is {positive_definite!r}; choose one of {allowed}")
        if max_kl is not None and not 0 < max_kl < math.inf:
            raise ValueError(f"max_kl is {max_kl}; give a number above 0, or None for no bound")
        if max_refused < 1:
            raise ValueError(f"max_refused is {max_refused}; give 1 or more")
        self.positive_definite = positive_definite
        self.max_kl = max_kl
        self.max_refused = max_refused
        self._counts = self.add_variable([len(COUNTS)], dtype=tf.int64, name="counts")
        self.refused_in_a_row = self.add_variable([], dtype=tf.int64, name="refused_in_a_row")
        """Steps in a row with gradients that were not finite."""

    @property
    def counts(self) -> dict[str, tf.Tensor]:
        """Steps of single latent GPs since the beginning by what became of them, for metrics.

        `taken`: as asked for; `corrected`: otherwise, usually shorter, for `positive_definite`;
        `shortened`: for the trust region; `refused`: not at all, for gradients that are not finite
        or numbers that cannot be represented.
        """
        return dict(zip(COUNTS, tf.unstack(self._counts), strict=True))

    def minimize(
        self,
        loss_fn: Callable[[], tf.Tensor],
        var_list: ParametersOrCall,
        name: str | None = None,
    ) -> None:
        """One step on every q(u) of the list, down one gradient of the loss.

        :param loss_fn: the loss, a scalar; called once.
        :param var_list: pairs (q_mu, q_sqrt) or triples (q_mu, q_sqrt, transformation), trainable
            or not; or a callable that returns them.
        :param name: of the scope of the operations.
        """
        self.apply_gradients(self.compute_gradients(loss_fn, var_list), name)

    def compute_gradients(
        self, loss_fn: Callable[[], tf.Tensor], var_list: ParametersOrCall
    ) -> list[tuple[QGradients, Parameters]]:
        """The gradients, each with its q(u), ready for :meth:`apply_gradients`.

        :param loss_fn: the loss, a scalar; called once.
        :param var_list: as in :meth:`minimize`.
        :raises TypeError: for a list of anything but pairs and triples.
        :raises ValueError: if the loss does not depend on a parameter.
        """
        entries = _checked(var_list() if callable(var_list) else var_list)
        variables = [q.unconstrained_variable for entry in entries for q in entry[:2]]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)  # untrainable ones too: GPflow's tutorials make q(u) so
            loss = loss_fn()
        gradients = tape.gradient(loss, variables)
        pairs = zip(gradients[::2], gradients[1::2], strict=True)
        return list(zip(pairs, entries, strict=True))

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[QGradients, Parameters]], name: str | None = None
    ) -> tf.Variable:
        """One step on every q(u) of the list, down gradients that are given.

        If a number in any of the gradients is not finite, every q(u) stays as it is.

        :param grads_and_vars: pairs of gradients and parameters:
            ((q_mu_grad, q_sqrt_grad), (q_mu, q_sqrt)), or with a transformation after q_sqrt. The
            gradients are those of the unconstrained variables, as tf.GradientTape gives them.
        :param name: of the scope of the operations.
        :returns: `iterations`, one more than before.
        :raises TypeError: for parameters that are no such pairs or triples.
        :raises ValueError: if a gradient is None.
        :raises tf.errors.InvalidArgumentError: after `max_refused` calls in a row with gradients
            that are not finite; or for a step to no Gaussian, if `positive_definite` is "exact".
        """
        pairs = list(grads_and_vars)
        _checked([entry for _, entry in pairs])
        for gradients, entry in pairs:
            for gradient, parameter in zip(gradients, entry[:2], strict=True):
                if gradient is None:
                    raise ValueError(
                        f"the loss does not depend on {parameter.name}, so it has no gradient;"
                        " leave its q(u) out of the list"
                    )

        def go() -> None:
            for gradients, entry in pairs:
                self._step(*gradients, *entry)

        with tf.name_scope(name or self.natgrad_name):
            finite = are_finite(*(gradient for gradients, _ in pairs for gradient in gradients))
            self._go_if(finite, go, [entry[0] for _, entry in pairs])
            return self.iterations.assign_add(1)

    def apply_one(
        self,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        xi_transform: XiTransform | None = None,
    ) -> None:
        """:meth:`apply_gradients` for one q(u); GPflux's models call it through GPflow's name."""
        self.apply_gradients([((q_mu_grad, q_sqrt_grad), (q_mu, q_sqrt, xi_transform))])

    def _go_if(
        self, finite: tf.Tensor | bool, go: Callable[[], None], q_mus: Sequence[gpflow.Parameter]
    ) -> None:
        """Take a step of these q(u), or leave all as they are and count that."""

        def taken() -> None:
            self.refused_in_a_row.assign(0, read_value=False)
            go()

        def refused() -> None:
            for q_mu in q_mus:
                self._count([0, 0, tf.shape(q_mu, out_type=tf.int64)[1]], q_mu)
            in_a_row = self.refused_in_a_row.assign_add(1)
            message = _TOO_MANY_REFUSED.format(self.natgrad_name, self.max_refused)
            tf.debugging.Assert(in_a_row < self.max_refused, [message])

        if finite is True:
            taken()
        else:
            tf.cond(finite, taken, refused)

    def _step(
        self,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        xi_transform: XiTransform | None = None,
    ) -> None:
        """Step one q(u)."""
        xi_transform = self.xi_transform if xi_transform is None else xi_transform
        gamma = self.current_gamma(q_mu.dtype)
        if has_closed_form(xi_transform):
            self._safe_step(q_mu_grad, q_sqrt_grad, q_mu, q_sqrt, xi_transform, gamma)
        else:
            gpflow_step(q_mu_grad, q_sqrt_grad, q_mu, q_sqrt, xi_transform, gamma)
            self._count(tf.zeros([3], tf.int64), q_mu)

    def _safe_step(
        self,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        xi_transform: XiTransform,
        gamma: tf.Tensor,
    ) -> None:
        step = self._step_function(xi_transform, q_sqrt)(
            tf.convert_to_tensor(q_mu),
            tf.convert_to_tensor(q_sqrt),
            constrained_gradient(q_mu_grad, q_mu),
            constrained_gradient(q_sqrt_grad, q_sqrt),
            gamma,
        )
        numbers = numbers_of(step)
        with tf.control_dependencies(self._checks(q_sqrt, numbers)):
            assign(q_mu, step.q_mu)
            assign(q_sqrt, step.q_sqrt)
        self._count(numbers, q_mu)

    def _checks(self, q_sqrt: gpflow.Parameter, numbers: tf.Tensor) -> list[tf.Operation]:
        """What has to hold before the outcome of a step is stored."""
        if self.positive_definite != "exact":
            return []
        # In a tf.function an operation to be run first; otherwise it raises here.
        check = tf.debugging.Assert(numbers[-1] == 0, [_NO_GAUSSIAN.format(q_sqrt.name)])
        return [] if check is None else [check]

    @property
    def has_closed_form(self) -> bool:
        """Whether :meth:`propose` knows the step of the transformation."""
        return has_closed_form(self.xi_transform)

    def propose(
        self, q_mu: tf.Tensor, q_sqrt: tf.Tensor, q_mu_grad: tf.Tensor, q_sqrt_grad: tf.Tensor
    ) -> SafeStep:
        """Where a step would lead, without taking it: for steps that are shared out over processes,
        or whose q_sqrt is at hand. XiNat and XiSqrtMeanVar only. QGradients that are not finite are
        no error: nothing is proposed for their latent GPs, which are `refused`.

        :param q_mu: [M, P]; any part of the latent GPs of a q(u).
        :param q_sqrt: [P, M, M].
        :param q_mu_grad: [M, P].
        :param q_sqrt_grad: [P, M, M], with respect to q_sqrt itself; what stands above its
            diagonal is not read.
        :raises TypeError: for another transformation.
        """
        if not self.has_closed_form:
            raise TypeError(
                f"{type(self.xi_transform).__name__} has no step in closed form; use XiNat or "
                "XiSqrtMeanVar, or apply_gradients, which takes GPflow's step"
            )
        step = self._step_function(self.xi_transform, q_sqrt)
        return step(q_mu, q_sqrt, q_mu_grad, q_sqrt_grad, self.current_gamma(q_mu.dtype))

    def adopt(
        self,
        q_mu: gpflow.Parameter,
        q_sqrt: gpflow.Parameter,
        q_mu_new: tf.Tensor,
        q_sqrt_new: tf.Tensor,
        numbers: tf.Tensor,
        finite: tf.Tensor | bool = True,
    ) -> None:
        """Take a step that was proposed; counts and refusals are those of :meth:`apply_gradients`.

        :param q_mu_new: [M, P].
        :param q_sqrt_new: [P, M (M + 1) / 2], packed, as the variable of q_sqrt holds it.
        :param numbers: :func:`numbers_of` the steps of all its latent GPs.
        :param finite: whether the gradients of the whole training step were; if not, q(u) stays.
            True where that is decided, and counted, elsewhere.
        """

        def go() -> None:
            with tf.control_dependencies(self._checks(q_sqrt, numbers)):
                q_mu.unconstrained_variable.assign(q_mu_new, read_value=False)
                q_sqrt.unconstrained_variable.assign(q_sqrt_new, read_value=False)
            self._count(numbers, q_mu)

        self._go_if(finite, go, [q_mu])
        self.iterations.assign_add(1, read_value=False)

    def _step_function(
        self, xi_transform: XiTransform, q_sqrt: gpflow.Parameter | tf.Tensor
    ) -> SafeStepFunction:
        return step_function(
            xi_transform,
            self.positive_definite,
            self.max_kl,
            is_diagonal=q_sqrt.shape.rank == 2,
        )

    def _count(self, others: tf.Tensor, q_mu: gpflow.Parameter) -> None:
        """Count the P steps of one q(u): [corrected, shortened, refused], and the rest as taken."""
        taken = tf.shape(q_mu, out_type=tf.int64)[1:] - tf.reduce_sum(others, keepdims=True)
        self._counts.assign_add(tf.concat([taken, others], axis=0), read_value=False)

    def get_config(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_config` makes the same optimizer, without its state.

        A callable gamma is stored by its value now, as Keras does.
        """
        return {
            "name": self.natgrad_name,
            "gamma": serialize_gamma(float(self.gamma) if self._owns_gamma else self.gamma),
            "xi_transform": serialize_transform(self.xi_transform),
            "positive_definite": self.positive_definite,
            "max_kl": self.max_kl,
            "max_refused": self.max_refused,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> NaturalGradient:
        """The optimizer of a configuration.

        :param config: as :meth:`get_config` gives it.
        :param custom_objects: classes of schedules and transformations by name, where they are
            not registered with Keras.
        """
        return cls(
            **{
                **config,
                "gamma": deserialize_gamma(config["gamma"], custom_objects),
                "xi_transform": deserialize_transform(config["xi_transform"], custom_objects),
            }
        )


def _checked(var_list: Sequence[Parameters]) -> Sequence[Parameters]:
    """:raises TypeError: for anything but a list of pairs and triples."""
    for entry in var_list:
        is_tuple = isinstance(entry, tuple | list) and len(entry) in (2, 3)
        if not is_tuple or not all(isinstance(q, gpflow.Parameter) for q in entry[:2]):
            raise TypeError(
                f"var_list holds a {type(entry).__name__}; give pairs (q_mu, q_sqrt) of GPflow's"
                " parameters, as in [(model.q_mu, model.q_sqrt)], and all other variables to"
                " another optimizer"
            )
    return var_list


_NO_GAUSSIAN = (
    "natural-gradient step on {}: the step is too long, its new covariance is not positive"
    ' definite; shorten gamma, set max_kl, or use positive_definite="fallback"'
)

_TOO_MANY_REFUSED = (
    "{}: the gradients were not finite {} times in a row, and the parameters are as before;"
    " look for overflow in the loss, lower the learning rate of the other optimizer, or train in"
    " float64"
)
