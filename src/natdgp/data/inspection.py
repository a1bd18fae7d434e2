"""Looks for numbers that are not finite in what a data loader gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class Inspection:
    """Of one loader's batches, as they are read.

    It stops nothing: on several ranks the others would wait for one that stopped alone. When a
    figure turns out not to be finite, it says whether the data are to blame.
    """

    def __init__(self, loader: str) -> None:
        """:param loader: what to call it, such as `build_training_data_loader`."""
        self._loader = loader
        self.found: str | None = None
        """The first number that is not finite, in words with the remedy."""

    def of(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; of dictionaries of tensors those of floats are looked at."""
        if not isinstance(batches.element_spec, dict):
            return batches
        return batches.map(self._look).prefetch(tf.data.AUTOTUNE)

    def _look(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        numbers = {name: values for name, values in batch.items() if values.dtype.is_floating}
        finite = [tf.reduce_all(tf.math.is_finite(values)) for values in numbers.values()]
        looked = tf.cond(tf.reduce_all(finite), tf.no_op, lambda: self._note(numbers))
        with tf.control_dependencies([looked]):
            return {name: tf.identity(values) for name, values in batch.items()}

    def _note(self, numbers: dict[str, tf.Tensor]) -> tf.Operation:
        def note(*arrays: npt.NDArray[np.floating[Any]]) -> np.bool_:
            self.found = self.found or self._in_words(dict(zip(numbers, arrays, strict=True)))
            return np.bool_(True)

        return tf.group(tf.numpy_function(note, list(numbers.values()), tf.bool))

    def _in_words(self, numbers: dict[str, npt.NDArray[np.floating[Any]]]) -> str:
        wrong = {name: np.argwhere(~np.isfinite(array)) for name, array in numbers.items()}
        name, places = next((name, places) for name, places in wrong.items() if len(places))
        place = tuple(map(int, places[0]))
        return (
            f"{self._loader} gave a batch with {name}{list(place)} {numbers[name][place]} "
            f"({len(places)} of its {numbers[name].size} numbers are not finite); "
            "mend or drop such rows"
        )
