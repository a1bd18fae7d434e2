"""A deep GP as Keras trains it: one forward and one backward pass a step, then the optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.training.evaluation import Evaluation
from natdgp.training.natgrad_model import NaturalGradientTraining
from natdgp.training.steppers import Aggregation, Differentiated, Placement
from natdgp.training.updates import Gradients, with_zeros


class Batch(NamedTuple):
    """What a step is given."""

    X: tf.Tensor
    """[n, D], standardised."""
    Y: tf.Tensor | None
    """[n, Q], as the likelihood has them."""
    positions: tf.Tensor
    """[n], the rows' places in the endless stream of examples."""
    weights: tf.Tensor | None
    """[n], what each row counts."""
    rows: tf.Tensor | None
    """[n], which training rows these are."""


class DeepGPModel(NaturalGradientTraining, tf.keras.Model):
    """Trains a :class:`natdgp.models.deep_gp.DeepGP`, reproducibly, on one rank or several.

    A batch is `{"inputs": [n, D], "targets": [n, Q], "positions": [n] int64, "rows": [n] int64}`,
    or the same without rows (which only encoders of single rows ask for) or without positions
    (consecutive ones are then given, from the step), or `(X, Y)` or `(X, Y, weights)`.
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
        placement: Placement = "replicated",
    ) -> None:
        """:param deep_gp: the model to train.
        :param natgrad_layers: which of the GP layers have their q(u) trained by natural gradients,
            by index.
        :param num_samples: S in training.
        :param evaluation_samples: S in evaluation and prediction.
        :param y_std: [Q], the standard deviations that targets were divided by.
        :param reducer: adds up over ranks; by default this process is alone.
        :param aggregation: how many batches make a step of the optimizers; by default one.
        :param placement: whether ranks repeat every natural-gradient step or share them out.
        """
        super().__init__(dtype=deep_gp.dtype)
        self.deep_gp = deep_gp
        self.natgrad_layers = [deep_gp.gp_layers[index] for index in natgrad_layers]
        self._num_samples = num_samples
        self.evaluation_samples = evaluation_samples
        self._log_volume = float(np.sum(np.log(y_std)))
        self._start_counting()
        self.distribute(reducer or OneProcess(), aggregation, placement)
        self.is_distributed = reducer is not None or aggregation is not None
        self._evaluation = Evaluation(deep_gp, y_std, lambda sums: self.reducer.total(sums))

    def call(self, inputs: Any, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of y, [n, Q] each, standardised."""
        X = self._batch(inputs).X
        mean, var = self.deep_gp.predictive_marginals(X, self.evaluation_samples)
        y: tuple[tf.Tensor, tf.Tensor] = self.deep_gp.likelihood.mean_and_variance(mean, var)
        return y

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of all optimizers on one batch.

        :returns: `loss` (negative ELBO per row, standardised), `elbo_per_datum` (in the units of
            y, nats), the step lengths that were used, how many natural-gradient steps of single
            latent GPs were taken, corrected, shortened and refused so far, and how many steps were
            refused as a whole.
        """
        X, Y, positions, weights, rows = self._batch(data)
        others = self.other_variables()
        used = self._step_lengths()
        natural = {layer.name: layer.posterior() for layer in self.natgrad_layers}
        q = tuple(natural.values())
        with tf.GradientTape() as tape:
            tape.watch(q)
            posteriors = [
                natural[layer.name] if layer.name in natural else layer.posterior()
                for layer in self.deep_gp.f_layers
            ]
            loss = -self.deep_gp.elbo(X, Y, positions, self._num_samples, posteriors, weights, rows)
        gradients = Gradients(*with_zeros(tape.gradient(loss, (q, tuple(others))), (q, others)))
        loss = self._stepper().step(Differentiated(q, gradients, loss, tf.shape(X)[0], self.step))
        self.step.assign_add(1)
        return {
            "loss": loss,
            "elbo_per_datum": -loss - self._log_volume,
            **used,
            **self._step_counts(),
        }

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Add one batch to the figures and return them so far; see :class:`Evaluation`.

        :raises ValueError: for sample weights.
        """
        X, Y, _, weights, _ = self._batch(data)
        if weights is not None:
            raise ValueError("there are no sample weights in evaluation; leave them out")
        mean, var = self.deep_gp.predictive_marginals(X, self.evaluation_samples, Stream.EVALUATION)
        self._evaluation.update_state(mean, var, Y, self._bounds(X, mean, var, Y))
        figures: dict[str, tf.Tensor] = self._evaluation.result()
        return figures

    def _bounds(self, X: tf.Tensor, mean: tf.Tensor, var: tf.Tensor, Y: tf.Tensor) -> tf.Tensor:
        """Bounds on log p(y) of rows, [S, n].

        Drawn from the prior, as for predictions, latent variables give a bound too, but one that
        tells little: where an encoder knows q(w | x, y), it is taken.
        """
        latent = self.deep_gp.latent_layers
        if not latent or not all(layer.is_amortised for layer in latent):
            return self.deep_gp.likelihood.expected_log_density(mean, var, Y)
        draws = self.deep_gp.noise.shared(Stream.EVALUATION, self.evaluation_samples)
        return self.deep_gp.row_bounds(X, Y, draws)

    def predict_step(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of y, [n, Q] each, standardised."""
        x, _, _ = tf.keras.utils.unpack_x_y_sample_weight(data)
        y: tuple[tf.Tensor, tf.Tensor] = self(x, training=False)
        return y

    def fit(self, *args: Any, **kwargs: Any) -> tf.keras.callbacks.History:
        """As Keras', on arrays in the model's own float type."""
        with self._own_float_type():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras', on arrays in the model's own float type."""
        with self._own_float_type():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras', on arrays in the model's own float type."""
        with self._own_float_type():
            return super().predict(*args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Write all variables, in TensorFlow's format, to files that begin with a path."""
        self._parts().write(str(filepath))

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """The inverse of :meth:`save_weights`; returns TensorFlow's status of the load."""
        return self._parts().read(str(filepath))

    def _parts(self) -> tf.train.Checkpoint:
        """The variables by the names that every format has had: layers, then the likelihood."""
        likelihood = tf.train.Checkpoint(likelihood=self.deep_gp.gpflow_likelihood)
        parts = [*self.deep_gp.f_layers, likelihood]
        named = {f"layer_with_weights-{number}": part for number, part in enumerate(parts)}
        if self.optimizer is not None:
            named |= {"natural": tf.train.Checkpoint(optimizers=self.natgrad_optimizers)}
            named |= {"other": self.optimizer, "step": self.step, "refused": self.refused}
        return tf.train.Checkpoint(**named)

    @contextlib.contextmanager
    def _own_float_type(self) -> Iterator[None]:
        # Keras turns NumPy's float64 into its own default, float32, on the way in.
        before = tf.keras.backend.floatx()
        tf.keras.backend.set_floatx(self.deep_gp.dtype.name)
        try:
            yield
        finally:
            tf.keras.backend.set_floatx(before)

    def _batch(self, data: Any) -> Batch:
        x, Y, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
        positions = rows = None
        if isinstance(x, Mapping):
            positions, rows = x.get("positions"), x.get("rows")
            x, Y = x["inputs"], x.get("targets", Y)
        dtype = self.deep_gp.dtype
        # Keras' generators tell no sizes.
        X = tf.ensure_shape(tf.cast(x, dtype), [None, self.deep_gp.input_dim])
        if Y is not None:
            Y = tf.cast(Y, dtype)
            Y = Y[:, None] if Y.shape.rank == 1 else Y
        if positions is None:
            n = tf.shape(X, out_type=tf.int64)[0]
            block = self.step * self.reducer.size + self.reducer.rank
            positions = block * n + tf.range(n)
        return Batch(X, Y, positions, weights, rows)

    def _step_lengths(self) -> dict[str, tf.Tensor]:
        """The step lengths in force, for the log: gamma (of the last layer) and Adam's."""
        lengths = {"learning_rate": tf.identity(self.optimizer.learning_rate)}
        if self.natgrad_optimizers:
            lengths["gamma"] = self.natgrad_optimizers[-1].current_gamma()
        return lengths

    def _step_counts(self) -> dict[str, tf.Tensor]:
        """What became of the natural-gradient steps of all layers, since the beginning."""
        counts = [optimizer.counts for optimizer in self.natgrad_optimizers]
        by_layers = {
            f"natgrad_{name}": tf.reduce_sum(tf.stack([count[name] for count in counts]))
            for name in (counts[0] if counts else ())
        }
        return {**by_layers, "steps_refused": self.refused[1]}
