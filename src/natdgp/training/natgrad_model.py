"""Keras models whose layers' q(u) natural gradients train, with GPflux's surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gpflow
import gpflux
import numpy as np
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.layers.gp import Posterior
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.parameters import constrained_gradient
from natdgp.training.steppers import (
    Aggregation,
    Differentiated,
    Placement,
    Stepper,
    choose_stepper,
)
from natdgp.training.updates import (
    Gradients,
    Updates,
    other_variables,
    posterior_of,
    with_zeros,
)


class NaturalGradientTraining:
    """What the models here share; a class beside `tf.keras.Model`, as Keras makes the bases of a
    model functional when one of its instances is.

    Compile with a list: one `NaturalGradient` for each of `natgrad_layers`, then one Keras
    optimizer for every other parameter; the latter is what `optimizer` returns to Keras' callbacks.
    Or with that one alone, and a step length `gamma` for all layers.
    """

    def distribute(
        self,
        reducer: Reducer,
        aggregation: Aggregation | None = None,
        placement: Placement = "replicated",
    ) -> None:
        """Train as one of several ranks; to be called before the first step.

        :param reducer: adds up over ranks.
        :param aggregation: how many batches make a step of the optimizers; by default one.
        :param placement: whether ranks repeat every natural-gradient step or share them out.
        """
        self.is_distributed = True
        self.reducer = reducer
        self.aggregation = aggregation or Aggregation()
        self.placement = placement
        aggregated: tf.Variable | None = None
        if self.aggregation.frequency > 1:
            q = [q for one in self.natgrad_layers for q in (one.q_mu, one.q_sqrt)]
            kept = [*(one.unconstrained_variable for one in q), *self.other_variables()]
            size = sum(one.shape.num_elements() for one in kept)
            aggregated = tf.Variable(
                tf.zeros([size + 1], kept[0].dtype), trainable=False, name="aggregated"
            )
        # Past Keras, which would make it a weight: a checkpoint need not hold it.
        vars(self)["aggregated"] = aggregated
        if reducer.size > 1:  # alone, a model may have no variables before its first batch
            reducer.broadcast(self.variables)

    def join(self, reducer: Reducer, aggregation: Aggregation) -> None:
        """Train as one of a trial's ranks, unless whoever built the model has said how."""
        if not self.is_distributed:
            self.distribute(reducer, aggregation, self.placement)

    def _start_counting(self) -> None:
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.refused = tf.Variable([0, 0], dtype=tf.int64, trainable=False, name="refused")
        """Steps that gradients which are not finite prevented: in a row until now, and in all."""

    @property
    def natgrad_layers(self) -> list[gpflux.layers.GPLayer]:
        """The layers whose q(u) natural gradients train; set a list, True for all, False for none.

        By default all GP layers.
        """
        chosen = getattr(self, "_natgrad_layers", True)
        if isinstance(chosen, bool):
            gp_layers = [one for one in self.layers if isinstance(one, gpflux.layers.GPLayer)]
            return gp_layers if chosen else []
        return list(chosen)

    @natgrad_layers.setter
    def natgrad_layers(self, layers: Sequence[gpflux.layers.GPLayer] | bool) -> None:
        self._natgrad_layers = layers if isinstance(layers, bool) else list(layers)
        self.train_function = None  # which Keras traced with the layers of before

    @property
    def natgrad_optimizers(self) -> list[NaturalGradient]:
        """One for each of `natgrad_layers`."""
        return list((getattr(self, "_all_optimizers", None) or [])[:-1])

    @property
    def optimizer(self) -> Any:
        """The optimizer of every parameter but q(u) of `natgrad_layers`."""
        return (getattr(self, "_all_optimizers", None) or [None])[-1]

    @optimizer.setter
    def optimizer(self, optimizers: Any) -> None:
        if optimizers is not self.optimizer:  # which Keras sets again
            self._all_optimizers = [] if optimizers is None else list(optimizers)

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer | str | Sequence[Any] = "adam",
        *args: Any,
        gamma: Any = 0.1,
        **kwargs: Any,
    ) -> None:
        """As Keras'.

        :param optimizer: a list with a natural-gradient optimizer for each of `natgrad_layers`,
            then one for all other parameters; or the last one alone. The step length of GPflow's
            own optimizer means what it does in GPflux's models, a step along the gradient of the
            mean over rows: it is N times shorter than that of natdgp's.
        :param gamma: the step length, where natural-gradient optimizers are not given.
        :raises TypeError: if the list holds something else.
        :raises ValueError: if it holds more or fewer.
        """
        layers = self.natgrad_layers
        if not isinstance(optimizer, list | tuple):
            last = [one for one in self.layers if isinstance(one, gpflux.layers.GPLayer)][-1:]
            natural = [
                NaturalGradient(
                    gamma,
                    positive_definite="fallback" if [layer] == last else "guaranteed",
                )
                for layer in layers
            ]
            optimizer = [*natural, tf.keras.optimizers.get(optimizer)]
        super().compile(_checked(optimizer, layers), *args, **kwargs)  # type: ignore[misc]

    def other_variables(self) -> list[tf.Variable]:
        """The variables that the last optimizer trains: all but the natural-gradient q(u)."""
        return other_variables(self.trainable_variables, self.natgrad_layers)

    def _stepper(self) -> Stepper:
        _checked([*self.natgrad_optimizers, self.optimizer], self.natgrad_layers)
        updates = Updates(
            self.natgrad_layers,
            self.natgrad_optimizers,
            self.optimizer,
            self.other_variables(),
            self.refused,
        )
        return choose_stepper(
            updates, self.reducer, self.placement, self.aggregation, self.aggregated
        )

    aggregated: tf.Variable | None
    """[T + 1], gradients of batches since the last step, where several batches make one."""

    # Of Keras, for mypy:
    layers: list[tf.keras.layers.Layer]
    variables: list[tf.Variable]
    trainable_variables: list[tf.Variable]
    compute_loss: Callable[..., tf.Tensor]
    compute_metrics: Callable[..., dict[str, tf.Tensor]]
    get_weights: Callable[[], list[np.ndarray[Any, Any]]]
    set_weights: Callable[[list[np.ndarray[Any, Any]]], None]


def _checked(optimizers: Sequence[Any], layers: Sequence[gpflux.layers.GPLayer]) -> list[Any]:
    *natural, other = optimizers or [None]
    remedy = (
        f"give a list of one natdgp.NaturalGradient for each of the {len(layers)} natgrad_layers, "
        "then one Keras optimizer for all other parameters"
    )
    if isinstance(other, gpflow.optimizers.NaturalGradient):
        raise TypeError(f"the last optimizer is a {type(other).__name__}; {remedy}")
    for one in natural:
        if not isinstance(one, gpflow.optimizers.NaturalGradient):
            raise TypeError(f"{type(one).__name__} is no natural-gradient optimizer; {remedy}")
    if len(natural) != len(layers):
        raise ValueError(f"there are {len(natural)} natural-gradient optimizers; {remedy}")
    return [*map(_own, natural, layers), other]


def _own(optimizer: gpflow.optimizers.NaturalGradient, layer: gpflux.layers.GPLayer) -> Any:
    """natdgp's optimizer; in place of GPflow's, one that takes the steps it takes in GPflux."""
    if isinstance(optimizer, NaturalGradient):
        return optimizer
    return NaturalGradient(
        lambda: tf.convert_to_tensor(optimizer.gamma, layer.q_mu.dtype) / layer.num_data,
        optimizer.xi_transform,
    )


class LossOfLayers(NaturalGradientTraining):
    """Training of models whose loss their layers add up, as GPflux's do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are `tf.keras.Model`'s."""
        super().__init__(*args, **kwargs)
        self._start_counting()
        self.distribute(OneProcess())
        self.is_distributed = False

    def _start_counting(self) -> None:
        super()._start_counting()
        self._validated = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of all optimizers on one batch; returns Keras' metrics.

        :raises ValueError: for sample weights that no loss would heed.
        """
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        self._refuse_unused(sample_weight)
        layers = self.natgrad_layers
        parameters = [(layer.q_mu, layer.q_sqrt) for layer in layers]
        q = [one.unconstrained_variable for pair in parameters for one in pair]
        posteriors = [posterior_of(layer) for layer in layers]
        with tf.GradientTape() as tape:
            tape.watch(q)  # also where GPflow's optimizers were told to leave it alone
            y_pred = self(x, training=True)  # type: ignore[operator]
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        others = self.other_variables()  # which a model may have from its first batch on
        by_q, by_others = with_zeros(tape.gradient(loss, (q, others)), (q, others))
        gradients = Gradients(
            tuple(
                Posterior(
                    constrained_gradient(by_q[2 * index], q_mu),
                    constrained_gradient(by_q[2 * index + 1], q_sqrt),
                )
                for index, (q_mu, q_sqrt) in enumerate(parameters)
            ),
            tuple(by_others),
        )
        examples = tf.shape(tf.nest.flatten(x)[0])[0]
        loss = self._stepper().step(
            Differentiated(posteriors, gradients, loss, examples, self.step)
        )
        self.step.assign_add(1)
        metrics = self.compute_metrics(x, y, y_pred, sample_weight)
        return metrics if self.reducer.size == 1 else {**metrics, "loss": loss}  # of all ranks

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The loss, which GPflux's layers add in training mode alone, and Keras' metrics.

        The loss is the mean over the rows of all ranks, some of whose batches may have none.
        """
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        self._refuse_unused(sample_weight)
        y_pred = self(x, training=True)  # type: ignore[operator]
        loss = self.compute_loss(x, y, y_pred, sample_weight)
        metrics = self.compute_metrics(x, y, y_pred, sample_weight)
        rows = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float64)
        losses = tf.where(rows > 0, tf.cast(loss, tf.float64) * rows, 0.0)
        total = self.reducer.total(self._validated.assign_add(tf.stack([losses, rows])))
        return {**metrics, "loss": total[0] / total[1]}

    def reset_metrics(self) -> None:
        """Forget all rows."""
        super().reset_metrics()  # type: ignore[misc]
        self._validated.assign(tf.zeros_like(self._validated))

    def fit(self, *args: Any, sample_weight: Any = None, **kwargs: Any) -> Any:
        """As Keras', which drops weights in silence where inputs and targets are one dictionary."""
        self._refuse_unused(sample_weight)
        return super().fit(*args, sample_weight=sample_weight, **kwargs)  # type: ignore[misc]

    def _refuse_unused(self, sample_weight: Any) -> None:
        if sample_weight is not None and not getattr(self, "loss", None):
            raise ValueError(
                "sample_weight has no effect on losses that layers add, which are means over rows; "
                "leave it out, or use natdgp's own deep GP, whose bound takes weights"
            )

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As Keras'; in HDF5, where Keras trips over GPflow's equal names, by number."""
        if _is_hdf5(filepath, kwargs.get("save_format")):
            import h5py

            with h5py.File(filepath, "w") as file:
                for number, value in enumerate(self.get_weights()):
                    file[f"weight_{number}"] = value
            return
        super().save_weights(filepath, *args, **kwargs)  # type: ignore[misc]

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """The inverse of :meth:`save_weights`."""
        if _is_hdf5(filepath, None):
            import h5py

            with h5py.File(filepath, "r") as file:
                values = [np.asarray(file[f"weight_{number}"]) for number in range(len(file))]
            self.set_weights(values)
            return None
        return super().load_weights(filepath, *args, **kwargs)  # type: ignore[misc]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keras cannot save a model of GP layers as a whole.

        :raises NotImplementedError: always, with what to do.
        """
        raise NotImplementedError(
            "Keras cannot save a model of GP layers as a whole: their kernels are no Keras "
            "objects; use save_weights, build the model anew and use load_weights"
        )


def _is_hdf5(path: Any, save_format: str | None) -> bool:
    return save_format == "h5" or (save_format is None and str(path).endswith((".h5", ".hdf5")))


class NatGradModel(LossOfLayers, tf.keras.Model):
    """A drop-in for `tf.keras.Model` where GPflux models are put together the functional way.

    As GPflux's class of this name, in its `model_class` too, with natdgp's steps: their lengths
    refer to the whole ELBO, not to its mean over rows. ::

        model = deep_gp.as_training_model(model_class=NatGradModel)
        model.compile([NaturalGradient(0.1), tf.keras.optimizers.Adam(0.01)])
        model.fit({"inputs": X, "targets": Y})
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A model put together the functional way has a class of its own: Keras makes the class of
        such a model functional, for all of its instances to come.
        """
        if cls is NatGradModel and len(args) + len({"inputs", "outputs"} & kwargs.keys()) == 2:
            return FunctionalNatGradModel(*args, **kwargs)
        return super().__new__(cls, *args, **kwargs)


class FunctionalNatGradModel(LossOfLayers, tf.keras.Model):
    """What :class:`NatGradModel` makes of inputs and outputs."""


class NatGradWrapper(LossOfLayers, tf.keras.Model):
    """Wraps a Keras model of GPflux layers, as GPflux's class of this name does. ::

    model = NatGradWrapper(base_model)
    model.compile(tf.keras.optimizers.Adam(0.01), gamma=0.1)
    model.fit({"inputs": X, "targets": Y})
    """

    def __init__(
        self,
        base_model: tf.keras.Model,
        natgrad_layers: Sequence[gpflux.layers.GPLayer] | bool = True,
        name: str | None = None,
    ) -> None:
        """:param base_model: a Keras model with GPflux layers.
        :param natgrad_layers: whose q(u) natural gradients train; True for all, False for none.
        :param name: of the model.
        """
        super().__init__(name=name)
        self.base_model = base_model
        self.input_names = getattr(base_model, "input_names", None)
        self.natgrad_layers = natgrad_layers

    @property
    def layers(self) -> list[tf.keras.layers.Layer]:  # type: ignore[override]
        """Those of the wrapped model."""
        base_model = self.__dict__.get("base_model")
        return super().layers if base_model is None else base_model.layers

    def call(self, data: Any, training: bool | None = None) -> Any:
        """What the base model makes of the data."""
        return self.base_model.call(data, training=training)
