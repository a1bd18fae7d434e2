"""The kinds of a training step: alone, over ranks, over several batches, shared out over ranks.

Each takes the gradients of one rank's rows and ends in the same step of the optimizers, which know
nothing of ranks (the second law of the design). One is chosen when a model is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import tensorflow as tf

from natdgp.distributed.packing import packed_sum, unpacked_means
from natdgp.distributed.reducer import Reducer
from natdgp.models.layers.gp import Posterior
from natdgp.natgrad.parameters import are_finite
from natdgp.training.sharded_steps import ShardedSteps
from natdgp.training.updates import Gradients, Updates

Placement = Literal["replicated", "sharded"]


@dataclass(frozen=True)
class Aggregation:
    """Several batches, one step of the optimizers: equal to one batch of all their rows."""

    frequency: int = 1
    """k, the batches of a step."""
    average: bool = True
    """Whether gradients of the k batches are averaged; else they are summed."""


class Differentiated(NamedTuple):
    """What a step is taken with: a batch's loss and its gradients."""

    posteriors: Sequence[Posterior]
    """q(u) of each natural-gradient layer, before the step."""
    gradients: Gradients
    """Of the mean loss of this rank's rows."""
    loss: tf.Tensor
    """That mean."""
    examples: tf.Tensor
    """n, this rank's rows."""
    number: tf.Tensor
    """Of the step, from 0."""


class Stepper(Protocol):
    """One kind of step."""

    def step(self, batch: Differentiated) -> tf.Tensor:
        """Take a step; returns the mean loss of all ranks' rows."""


class StepAlone:
    """In one process, every batch a step."""

    def __init__(self, updates: Updates) -> None:
        self._updates = updates

    def step(self, batch: Differentiated) -> tf.Tensor:
        self._updates.step(batch.posteriors, batch.gradients)
        return batch.loss


class StepOverRanks:
    """One collective averages the gradients of all ranks' rows; every rank takes every step."""

    def __init__(self, updates: Updates, reducer: Reducer) -> None:
        self._updates = updates
        self._reducer = reducer

    def step(self, batch: Differentiated) -> tf.Tensor:
        packed = [*batch.gradients.packed(), batch.loss]
        (*packed, loss), _ = averaged(self._reducer, packed, batch.examples)
        self._updates.step(batch.posteriors, batch.gradients.unpacked(packed))
        return loss


class StepOverBatches:
    """Gradients of k batches are kept, and added up over ranks once, for one step."""

    def __init__(
        self, updates: Updates, reducer: Reducer, aggregation: Aggregation, kept: tf.Variable
    ) -> None:
        """:param kept: [T + 1], the sum of :func:`natdgp.distributed.packing.packed_sum` vectors
        since the last step.
        """
        self._updates = updates
        self._reducer = reducer
        self._aggregation = aggregation
        self._kept = kept

    def step(self, batch: Differentiated) -> tf.Tensor:
        packed = batch.gradients.packed()
        (loss,), _ = averaged(self._reducer, [batch.loss], batch.examples)
        self._kept.assign_add(packed_sum(packed, batch.examples), read_value=False)

        def go() -> None:
            means = unpacked_means(self._reducer.total(self._kept), packed)
            with tf.control_dependencies(means):
                self._kept.assign(tf.zeros_like(self._kept), read_value=False)
            factor = 1 if self._aggregation.average else self._aggregation.frequency
            gradients = batch.gradients.unpacked([mean * factor for mean in means])
            self._updates.step(batch.posteriors, gradients)

        tf.cond(tf.equal((batch.number + 1) % self._aggregation.frequency, 0), go, lambda: None)
        return loss


class StepSharded:
    """Natural-gradient steps are shared out over ranks: each latent GP is stepped by one."""

    def __init__(self, updates: Updates, reducer: Reducer) -> None:
        self._updates = updates
        self._reducer = reducer

    def step(self, batch: Differentiated) -> tf.Tensor:
        count = 2 * len(batch.gradients.q)
        packed = batch.gradients.packed()
        # Above 0 on every rank if a number on any of them is not finite.
        wrong = tf.where(are_finite(*packed), tf.zeros_like(batch.loss), tf.ones_like(batch.loss))
        (*others, wrong, loss), all_examples = averaged(
            self._reducer, [*packed[count:], wrong, batch.loss], batch.examples
        )
        weight = tf.cast(batch.examples, loss.dtype)
        sharded = ShardedSteps(self._updates.layers, self._updates.natural, self._reducer)
        adopt = sharded.proposed(
            [q.q_sqrt for q in batch.posteriors],
            [one * weight for one in packed[:count]],
            all_examples,
        )
        self._updates.step_sharded(others, tf.equal(wrong, 0), adopt)
        return loss


def averaged(
    reducer: Reducer, means: Sequence[tf.Tensor], examples: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Means over all ranks' examples, by one collective, and the number of these examples.

    :param means: over this rank's examples.
    :param examples: how many these are.
    """
    if reducer.size == 1:
        return list(means), examples
    vector = reducer.total(packed_sum(means, examples))
    return unpacked_means(vector, means), vector[-1]


def choose_stepper(
    updates: Updates,
    reducer: Reducer,
    placement: Placement,
    aggregation: Aggregation,
    kept: tf.Variable | None,
) -> Stepper:
    """The kind of step; batches that are aggregated are always stepped by all ranks."""
    if kept is not None:
        return StepOverBatches(updates, reducer, aggregation, kept)
    if reducer.size == 1:
        return StepAlone(updates)
    if placement == "sharded" and updates.layers:
        return StepSharded(updates, reducer)
    return StepOverRanks(updates, reducer)
