"""The model that Keras trains: one forward and one backward pass a step, then the optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gpflux
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.models import DeepGP, Stream
from natdgp.parallel import OneProcess, Reducer
from natdgp.training.natural_steps import (
    other_variables,
    step_naturally,
    variational_parameters,
)
from natdgp.training.predictive import Predictive, PredictiveSums

Batch = Mapping[str, tf.Tensor]
"""`inputs` [n, D] and `targets` [n, Q], standardised, and `positions` [n], the rows' places in the
endless stream of examples (training) or in the validation rows."""


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
        global_batch_size: int,
        evaluation_batch_size: int,
        num_samples: int,
        evaluation_samples: int,
        y_std: npt.NDArray[np.float64],
        reducer: Reducer | None = None,
    ) -> None:
        """:param deep_gp: the model to train.
        :param natgrad_layers: indices of the layers whose q(u) natural gradients train.
        :param global_batch_size: B, rows of a training step over all ranks.
        :param evaluation_batch_size: rows of an evaluation step over all ranks.
        :param num_samples: S in training.
        :param evaluation_samples: S in evaluation.
        :param y_std: [Q], the standard deviations that targets were divided by.
        :param reducer: averages gradients over ranks; by default this process is alone.
        """
        outputs = deep_gp.call(deep_gp.inputs, deep_gp.targets)
        super().__init__([deep_gp.inputs, deep_gp.targets], outputs)
        self.deep_gp = deep_gp
        self.natgrad_layers = [deep_gp.f_layers[index] for index in natgrad_layers]
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._global_batch_size = global_batch_size
        self._evaluation_batch_size = evaluation_batch_size
        self._num_samples = deep_gp.samples_per_row(num_samples)
        self._evaluation_samples = deep_gp.samples_per_row(evaluation_samples)
        self._log_volume = float(np.sum(np.log(y_std)))
        self._reducer = reducer or OneProcess()
        self._predictive_sums = PredictiveSums(deep_gp, y_std, self._reducer.total)

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
        S, B = self._num_samples, self._global_batch_size
        Y = tf.tile(data["targets"], [S, 1])
        with (
            self.deep_gp.noise.at(
                stream=Stream.TRAINING,
                step=self.step,
                rows=data["positions"] % B,
                num_rows=B,
                num_samples=S,
            ),
            tf.GradientTape() as tape,
        ):
            self([data["inputs"], Y], training=True)
            loss = tf.add_n(self.losses)

        q_vars = [p.unconstrained_variable for p in variational_parameters(self.natgrad_layers)]
        others = self.other_variables()
        gradients = tape.gradient(loss, q_vars + others)
        gradients = self._reducer.average(gradients, tf.shape(data["inputs"])[0])

        used = self._step_lengths()
        step_naturally(self.natgrad_layers, self.natgrad_optimizers, gradients[: len(q_vars)])
        self.optimizer.apply_gradients(zip(gradients[len(q_vars) :], others, strict=True))
        self.step.assign_add(1)
        return {
            "loss": loss,
            "elbo_per_datum": -loss - self._log_volume,
            **used,
            **self._step_counts(),
        }

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Add one batch to the figures and return them so far; see :class:`PredictiveSums`."""
        S, B = self._evaluation_samples, self._evaluation_batch_size
        positions, Y = data["positions"], data["targets"]
        with self.deep_gp.noise.at(
            stream=Stream.EVALUATION,
            step=positions[0] // B,
            rows=positions % B,
            num_rows=B,
            num_samples=S,
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
