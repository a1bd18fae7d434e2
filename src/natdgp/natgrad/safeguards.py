"""Steps that never fail: what to do for a latent GP whose exact step is not valid, or too far."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from natdgp.natgrad.steps import Step, per_latent

StepFunction = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], Step]
"""(q_mu, q_sqrt, q_mu_grad, q_sqrt_grad, gamma) to :class:`Step`; gamma is a scalar or [P]."""

Divergence = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(q_mu_new, q_sqrt_new, q_mu, q_sqrt) to KL(q_new || q_old), [P]."""

TRIALS = 16
"""Most lengths that are tried to meet a trust region."""

CLOSE = 0.9
"""A shortened step is long enough when its KL is at least this share of what is allowed."""


class SafeStep(NamedTuple):
    """Where a step led, and how; a latent GP that is none of the three took the step as asked."""

    q_mu: tf.Tensor
    """[M, P]"""
    q_sqrt: tf.Tensor
    """[P, M, M], or [M, P] for a diagonal q."""
    corrected: tf.Tensor
    """[P], whether it took another step than the one asked for, which led to no Gaussian or, if
    guaranteed, to a variance of more than twice the old one."""
    shortened: tf.Tensor
    """[P], whether its step was made shorter for the trust region."""
    refused: tf.Tensor
    """[P], whether it stayed where it was."""
    share: tf.Tensor
    """[P], the share of gamma that it took."""


SafeStepFunction = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], SafeStep]


def first_valid(step: StepFunction, *, correction: StepFunction | None = None) -> SafeStepFunction:
    """For each latent GP the step if it is valid, else its correction.

    The correction is computed only when some latent GP needs it.
    """

    def safe(
        q_mu: tf.Tensor,
        q_sqrt: tf.Tensor,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        gamma: tf.Tensor,
    ) -> SafeStep:
        arguments = (q_mu, q_sqrt, q_mu_grad, q_sqrt_grad, gamma)
        best = step(*arguments)
        corrected = best.valid & (best.share < 1)
        if correction is not None:
            valid = best.valid
            best = _where_not_valid(best, correction, arguments)
            corrected |= best.valid & ~valid
        return SafeStep(
            best.q_mu,
            best.q_sqrt,
            corrected=corrected,
            shortened=tf.zeros_like(corrected),
            refused=~best.valid,
            share=best.share,
        )

    return safe


def _where_not_valid(step: Step, other: StepFunction, arguments: tuple[tf.Tensor, ...]) -> Step:
    """The step, and the other one where it is not valid."""

    def replaced(*flat: tf.Tensor) -> Step:
        first, second = Step(*flat[:4]), other(*flat[4:])
        matrix = first.valid if first.q_sqrt.shape.rank == 2 else first.valid[:, None, None]
        return Step(
            tf.where(first.valid, first.q_mu, second.q_mu),
            tf.where(matrix, first.q_sqrt, second.q_sqrt),
            first.valid | second.valid,
            tf.where(first.valid, first.share, second.share),
        )

    rare = _uninlined(replaced) if tf.inside_function() else replaced
    chosen: Step = tf.cond(tf.reduce_all(step.valid), lambda: step, lambda: rare(*step, *arguments))
    return chosen


def _uninlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that stays one node of the graph.

    Of a branch that is not taken, TensorFlow still visits every node; for a branch of hundreds of
    nodes that is some percent of a small step.
    """
    node: Callable[..., Any] = tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )
    return node


def within(max_kl: float, divergence: Divergence, step: SafeStepFunction) -> SafeStepFunction:
    """The step, shortened per latent GP until KL(q_new || q_old) <= max_kl.

    Along the exact step KL grows with gamma: with lambda the eigenvalues of C / gamma its
    covariance part is the sum of f(gamma lambda) / 2, f(x) = log(1 + x) - x / (1 + x), whose
    derivative has the sign of x, and its mean part is |gamma B^-1 L' g|^2 / 2, also growing. So it
    does along the guaranteed step, which is the exact one of a share of the length: it is at
    `share` times gamma that its KL is compared with others.

    From a length that is too long steps are shortened until one is short enough; the two are
    brought together, interpolating log KL over log gamma (KL starts as gamma^2 and ends as log
    gamma), until KL is between `CLOSE` max_kl and max_kl. After `TRIALS` lengths the longest that
    was short enough is taken. Each trial costs a step; a step that fits costs one divergence more.
    """

    def safe(
        q_mu: tf.Tensor,
        q_sqrt: tf.Tensor,
        q_mu_grad: tf.Tensor,
        q_sqrt_grad: tf.Tensor,
        gamma: tf.Tensor,
    ) -> SafeStep:
        arguments = (q_mu, q_sqrt, q_mu_grad, q_sqrt_grad)
        limit = tf.cast(max_kl, q_mu.dtype)

        def tried(gamma: tf.Tensor) -> tuple[SafeStep, _Bound]:
            """The step of a length; the length it took and its KL, infinite if it was refused."""
            trial = step(*arguments, gamma)
            kl = divergence(trial.q_mu, trial.q_sqrt, q_mu, q_sqrt)
            infinite = trial.refused | tf.math.is_nan(kl)
            kl = tf.where(infinite, tf.constant(math.inf, kl.dtype), kl)
            return trial, _Bound(gamma * trial.share, kl)

        full, long = tried(per_latent(gamma, q_mu))
        nothing = tf.zeros_like(full.refused)
        zeros = tf.zeros_like(long.kl)
        stay = SafeStep(q_mu, q_sqrt, nothing, nothing, refused=~nothing, share=zeros)
        settled = long.kl <= limit
        short = _Bound(zeros, zeros)

        def body(
            number: tf.Tensor, best: SafeStep, settled: tf.Tensor, short: _Bound, long: _Bound
        ) -> tuple[tf.Tensor, SafeStep, tf.Tensor, _Bound, _Bound]:
            trial, bound = tried(_between(short, long, limit, number))
            fits = ~settled & (bound.kl <= limit)
            too_long = ~settled & ~fits
            taken = trial._replace(corrected=nothing, shortened=~nothing)
            return (
                number + 1,
                _choose(fits, taken, best),
                settled | (fits & (bound.kl >= CLOSE * limit)),
                _Bound(*(tf.where(fits, new, old) for new, old in zip(bound, short, strict=True))),
                _Bound(
                    *(tf.where(too_long, new, old) for new, old in zip(bound, long, strict=True))
                ),
            )

        best: SafeStep
        _, best, *_ = tf.while_loop(
            lambda number, best, settled, short, long: ~tf.reduce_all(settled),
            body,
            (tf.constant(1), _choose(settled, full, stay), settled, short, long),
            maximum_iterations=TRIALS,
        )
        return best

    return safe


class _Bound(NamedTuple):
    """A length that was taken and its KL, [P]; both 0 while none is known to be short enough."""

    gamma: tf.Tensor
    kl: tf.Tensor


def _between(short: _Bound, long: _Bound, limit: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """The next length to try; aims a little below the limit, to end rather than to approach."""
    aim = 0.5 * (1 + CLOSE) * limit
    # Far from the limit KL may fall as slowly as log gamma: retreat faster with every trial.
    retreat = tf.clip_by_value(aim / long.kl, 1e-3, 0.5)  # 1e-3 where KL is infinite
    from_above = long.gamma * tf.pow(retreat, tf.cast(number, limit.dtype))

    bracketed = (short.gamma > 0) & (long.kl < math.inf)
    short_kl = tf.where(bracketed, tf.maximum(short.kl, 1e-9 * aim), 0.5 * aim)
    long_kl = tf.where(bracketed, long.kl, 2 * aim)  # halfway, if it is infinite
    share = tf.math.log(aim / short_kl) / tf.math.log(long_kl / short_kl)
    ratio = long.gamma / tf.where(short.gamma > 0, short.gamma, long.gamma)
    between = short.gamma * tf.pow(ratio, tf.clip_by_value(share, 0.05, 0.95))
    return tf.where(short.gamma > 0, between, from_above)


def _choose(condition: tf.Tensor, first: SafeStep, second: SafeStep) -> SafeStep:
    matrix = condition if first.q_sqrt.shape.rank == 2 else condition[:, None, None]
    return SafeStep(
        tf.where(condition, first.q_mu, second.q_mu),
        tf.where(matrix, first.q_sqrt, second.q_sqrt),
        *(tf.where(condition, a, b) for a, b in zip(first[2:], second[2:], strict=True)),
    )


def numbers_of(step: SafeStep) -> tf.Tensor:
    """How many of a step's latent GPs were [corrected, shortened, refused]."""
    flags = tf.stack([step.corrected, step.shortened, step.refused])
    return tf.reduce_sum(tf.cast(flags, tf.int64), axis=1)
