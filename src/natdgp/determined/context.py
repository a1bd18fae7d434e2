"""Determined's trial context, which hands natdgp's models the ranks that they train on."""

from __future__ import annotations

from typing import Any

import determined as det
import gpflux
import tensorflow as tf
from determined import keras

from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.training.natgrad_model import NaturalGradientTraining
from natdgp.training.steppers import Aggregation


class DeepGPContext(keras.TFKerasTrialContext):
    """What it changes, and why, stands at each method."""

    @property
    def reducer(self) -> Reducer:
        """Adds up over the trial's slots."""
        if self.distributed.size == 1:
            return OneProcess()
        from natdgp.distributed.horovod_reducer import HorovodReducer  # only where Horovod is there

        return HorovodReducer()

    @property
    def aggregation(self) -> Aggregation:
        """`optimizations.aggregation_frequency`, which Determined 0.38.1 has no effect of."""
        optimizations = self.get_experiment_config()["optimizations"]
        return Aggregation(
            optimizations["aggregation_frequency"], optimizations["average_aggregated_gradients"]
        )

    def wrap_model(self, model: tf.keras.Model) -> tf.keras.Model:
        """As Determined's.

        :raises determined.InvalidHP: for GPflux's own model of natural gradients on several slots,
            whose training step hands Horovod nothing to reduce.
        """
        if isinstance(model, NaturalGradientTraining):
            model.join(self.reducer, self.aggregation)
        elif isinstance(model, gpflux.optimization.NatGradModel) and self.distributed.size > 1:
            raise det.InvalidHP(
                f"a {type(model).__name__} of GPflux trains every slot by itself; use natdgp's "
                "class of the same name, or one slot"
            )
        return super().wrap_model(model)

    def _process_optimizer_from_compile(self, optimizer: Any) -> Any:
        # Natdgp's models reduce their gradients themselves; Horovod's wrapper takes no lists.
        if isinstance(self.model, NaturalGradientTraining | gpflux.optimization.NatGradModel):
            self._compiled_optimizer = optimizer
            return optimizer
        return super()._process_optimizer_from_compile(optimizer)
