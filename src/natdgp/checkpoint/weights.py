"""A model's variables, read from the TensorFlow checkpoint in a folder."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from natdgp.checkpoint.checksums import (
    RECORD_NAME,
    WEIGHTS_NAME,
    DamagedCheckpoint,
    write_checksums,
)
from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.training_state import write_aggregated, write_state
from natdgp.likelihoods.registry import build_likelihood
from natdgp.models.builder import layer_sizes


def save_weights(model: tf.keras.Model, folder: Path) -> None:
    """Write a model's variables, those of its optimizers included, into a checkpoint's folder."""
    model.save_weights(str(folder / WEIGHTS_NAME), save_format="tf")


def write_checkpoint(model: tf.keras.Model, record: ModelRecord, folder: Path) -> None:
    """Write a model into a new folder, whole: variables, record and checksums.

    :raises FileExistsError: if there is something already; nothing is ever overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something already; choose another folder")
    save_weights(model, folder)
    complete_checkpoint(model, record, folder)


def complete_checkpoint(
    model: tf.keras.Model,
    record: ModelRecord,
    folder: Path,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write what belongs to a checkpoint beside the weights, its checksums last.

    :param state: of the run, where it may go on from here; with it go the gradients of a step that
        several batches make and that is not complete.
    """
    if state is not None:
        if (aggregated := getattr(model, "aggregated", None)) is not None:
            write_aggregated(folder, aggregated)
        write_state(folder, state)
    record.write(folder)
    write_checksums(folder)


def load_weights(model: tf.keras.Model, folder: Path) -> None:
    """Fill a model's variables, and those of its optimizers if it is compiled.

    :param model: of the kind that was saved, compiled or not.
    :param folder: the checkpoint's.
    :raises AssertionError: if the checkpoint lacks one of the variables.
    """
    with _plainly_named(folder) as plain:
        status = model.load_weights(str(plain / WEIGHTS_NAME))
        status.assert_existing_objects_matched()
        status.expect_partial()  # a model that only predicts has no optimizers


def check_shapes_of_weights(record: ModelRecord, folder: Path) -> None:
    """Compare what a record says with a checkpoint's weights, before a model of any size is built.

    :param record: of the checkpoint.
    :param folder: the checkpoint's.
    :raises DamagedCheckpoint: if the weights are of other shapes, or fewer than they claim to be.
    """
    index = folder / f"{WEIGHTS_NAME}.index"
    with _plainly_named(folder) as plain:
        try:
            reader = tf.train.load_checkpoint(str(plain / WEIGHTS_NAME))
        except tf.errors.OpError as error:
            raise DamagedCheckpoint(f"{index} cannot be read: {error.message}") from error
    found = reader.get_variable_to_shape_map()
    expected = _shapes(record)
    for name, shape in expected.items():
        held = found.get(f"{name}/_pretransformed_input/.ATTRIBUTES/VARIABLE_VALUE")
        if held != shape:
            raise DamagedCheckpoint(
                f"{folder / RECORD_NAME} describes another model than {index} holds: by its "
                f"settings.model and task, {name} has the shape {shape}, but there it has {held}"
            )
    size = sum(path.stat().st_size for path in folder.glob(f"{WEIGHTS_NAME}.data-*"))
    if size < np.dtype(record.settings.model.dtype).itemsize * sum(
        map(math.prod, expected.values())
    ):
        raise DamagedCheckpoint(f"{index} claims more weights than its data hold, {size} bytes")


def _shapes(record: ModelRecord) -> dict[str, list[int]]:
    """The variables that grow with a model, by their names in a checkpoint."""
    shapes = {}
    model, shape = record.settings.model, record.task.shape
    latent_gps = build_likelihood(model.likelihood).num_latent_gps(shape.output_dim)
    sizes = layer_sizes(model, shape, latent_gps)
    for index, (latent, _, D, P, M) in enumerate(sizes):
        layer = f"layer_with_weights-{index}"
        if latent is not None:
            continue
        shapes[f"{layer}/inducing_variable/inducing_variable/Z"] = [M, D]
        shapes[f"{layer}/q_mu"] = [M, P]
        shapes[f"{layer}/q_sqrt"] = [P, M * (M + 1) // 2]
        if D != P and index < len(sizes) - 1:
            shapes[f"{layer}/mean_function/A"] = [D, P]
    return shapes


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """The folder, by a name that TensorFlow does not take for a pattern of names."""
    if not set(str(folder)) & set("*?[\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="natdgp-") as place:
        link = Path(place) / "checkpoint"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
