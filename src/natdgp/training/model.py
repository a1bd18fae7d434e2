"""The model that Keras trains: one forward and one backward pass a step, then the optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import gpflux
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.distributed.packing import packed_sum, unpacked_means
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.natgrad.parameters import packed_triangle, unpacked_triangle
from natdgp.training.aggregation import Aggregation, Aggregator
from natdgp.training.natural_steps import other_variables, step_from_matrices
from natdgp.training.predictive import Predictive, PredictiveSums
from natdgp.training.sharded_steps import ShardedSteps

Batch = Mapping[str, tf.Tensor]
"""`inputs` [n, D] and `targets` [n, Q], standardised, and `positions` [n], consecutive: the
rows' places in the endless stream of examples (training) or in the validation rows."""


class NatGradModel(gpflux.optimization.NatGradModel):
    """GPflux's model with a step that is reproducible, reduced once, and evaluates what it claims.

    Compile it with a list: one `NaturalGradient` for each of `natgrad_layers`, then one Keras
    optimizer for every other parameter; the latter is what `optimizer` returns to Keras' callbacks.
    """

    def __init__(
        self,
        deep_gp: DeepGP,
        *,
        natgrad_layers: Sequence[int],
        num_samples: int,
        evaluation_samples: int,
        y_std: npt.NDArray[np.float64],
        reducer: Reducer | None = None,
        aggregation: Aggregation | None = None,
        shards_steps: bool = False,
    ) -> None:
        """:param deep_gp: the model to train.
        :param natgrad_layers: indices of the layers whose q(u) natural gradients train.
        :param num_samples: S in training.
        :param evaluation_samples: S in evaluation.
        :param y_std: [Q], the standard deviations that targets were divided by.
        :param reducer: adds up over ranks; by default this process is alone.
        :param aggregation: how many batches make a step of the optimizers; by default one.
        :param shards_steps: whether ranks share the natural-gradient steps out among them, instead
            of taking all of them each.
        """
        outputs = deep_gp.call(deep_gp.inputs, deep_gp.targets)
        super().__init__([deep_gp.inputs, deep_gp.targets], outputs)
        self.deep_gp = deep_gp
        self.natgrad_layers = [deep_gp.f_layers[index] for index in natgrad_layers]
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._num_samples = deep_gp.samples_per_row(num_samples)
        self._evaluation_samples = deep_gp.samples_per_row(evaluation_samples)
        self._log_volume = float(np.sum(np.log(y_std)))
        self.reducer = reducer or OneProcess()
        """What adds up over ranks."""
        self.aggregator: Aggregator | None = None
        """What is kept of several batches that make one step, if several do."""
        if aggregation is not None and aggregation.frequency > 1:
            self.aggregator = Aggregator(aggregation, self.trainable_variables, self.reducer)
        self._shards_steps = shards_steps
        self._predictive_sums = PredictiveSums(deep_gp, y_std, self.reducer.total)

    @property
    def predictive(self) -> Predictive:
        """Density, CDF and CRPS of predictions."""
        return self._predictive_sums.predictive

    def other_variables(self) -> list[tf.Variable]:
        """The variables that the last optimizer trains: all but the natural-gradient q(u)."""
        return other_variables(self.trainable_variables, self.natgrad_layers)

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """One step of all optimizers on one batch.

        :returns: `loss` (negative ELBO per row, standardised), `elbo_per_datum` (in the units of
            y, nats), the step lengths that were used, and how many natural-gradient steps of
            single latent GPs were taken, corrected, shortened and refused so far.
        """
        S = self._num_samples
        examples = tf.shape(data["inputs"])[0]
        Y = tf.tile(data["targets"], [S, 1])
        layers = self.natgrad_layers
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                self.deep_gp.noise.at(
                    stream=Stream.TRAINING,
                    first=data["positions"][0],
                    num_rows=examples,
                    num_samples=S,
                )
            )
            tape = stack.enter_context(tf.GradientTape())
            q_sqrts = [stack.enter_context(layer.holding_q_sqrt()) for layer in layers]
            self([data["inputs"], Y], training=True)
            loss = tf.add_n(self.losses)

        q_mus = [layer.q_mu.unconstrained_variable for layer in layers]
        q = [one for pair in zip(q_mus, q_sqrts, strict=True) for one in pair]
        others = self.other_variables()
        gradients = tape.gradient(loss, q + others)
        used = self._step_lengths()

        def step(gradients: Sequence[tf.Tensor]) -> None:
            step_from_matrices(layers, self.natgrad_optimizers, q_sqrts, gradients[: len(q)])
            self.optimizer.apply_gradients(zip(gradients[len(q) :], others, strict=True))

        if self.aggregator is not None:
            (loss,), _ = self._averaged([loss], examples)
            self._aggregate(
                self.aggregator, self._each_q_sqrt(packed_triangle, gradients), examples, step
            )
        elif self._shards_steps:
            packed = self._each_q_sqrt(packed_triangle, gradients)
            (*means, loss), all_examples = self._averaged([*packed[len(q) :], loss], examples)
            weight = tf.cast(examples, loss.dtype)
            sharded = ShardedSteps(layers, self.natgrad_optimizers, self.reducer)
            sharded.step(q_sqrts, [one * weight for one in packed[: len(q)]], all_examples)
            self.optimizer.apply_gradients(zip(means, others, strict=True))
        elif self.reducer.size == 1:
            step(gradients)
        else:
            (*packed, loss), _ = self._averaged(
                [*self._each_q_sqrt(packed_triangle, gradients), loss], examples
            )
            step(self._each_q_sqrt(unpacked_triangle, packed))
        self.step.assign_add(1)
        return {
            "loss": loss,
            "elbo_per_datum": -loss - self._log_volume,
            **used,
            **self._step_counts(),
        }

    def _each_q_sqrt(
        self, convert: Callable[[tf.Tensor], tf.Tensor], gradients: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The gradients, those of every q_sqrt converted: they are packed to travel."""
        every_second = range(1, 2 * len(self.natgrad_layers), 2)
        return [
            convert(one) if index in every_second else one for index, one in enumerate(gradients)
        ]

    def _averaged(
        self, means: Sequence[tf.Tensor], examples: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Means over all ranks' examples, by one collective, and the number of these examples."""
        if self.reducer.size == 1:
            return list(means), examples
        vector = self.reducer.total(packed_sum(means, examples))
        return unpacked_means(vector, means), vector[-1]

    def _aggregate(
        self,
        aggregator: Aggregator,
        gradients: Sequence[tf.Tensor],
        examples: tf.Tensor,
        step: Callable[[Sequence[tf.Tensor]], None],
    ) -> None:
        """Keep this batch's gradients, and step with all that were kept when it is time."""
        aggregator.add(gradients, examples)
        tf.cond(
            aggregator.is_complete(self.step),
            lambda: step(self._each_q_sqrt(unpacked_triangle, aggregator.take(gradients))),
            lambda: None,
        )

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Add one batch to the figures and return them so far; see :class:`PredictiveSums`."""
        positions, Y = data["positions"], data["targets"]
        with self.deep_gp.noise.at(
            stream=Stream.EVALUATION,
            first=tf.reduce_sum(positions[:1]),  # a batch may have no rows
            num_rows=tf.size(positions),
            num_samples=self._evaluation_samples,
        ):
            mean, var = self.deep_gp.predict_f_samples(data["inputs"])
            self._predictive_sums.update_state(mean, var, Y)
        return self._predictive_sums.result()

    def _step_lengths(self) -> dict[str, tf.Tensor]:
        """The step lengths in force, for the log: gamma (if used) and Adam's learning rate."""
        lengths = {"learning_rate": tf.identity(self.optimizer.learning_rate)}
        if self.natgrad_optimizers:
            lengths["gamma"] = tf.identity(self.natgrad_optimizers[0].gamma)
        return lengths

    def _step_counts(self) -> dict[str, tf.Tensor]:
        """What became of the natural-gradient steps of all layers, since the beginning."""
        counts = [optimizer.counts for optimizer in self.natgrad_optimizers]
        return {
            f"natgrad_{name}": tf.add_n([count[name] for count in counts])
            for name in (counts[0] if counts else ())
        }
