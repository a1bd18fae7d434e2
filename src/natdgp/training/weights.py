"""A model's variables, read from the TensorFlow checkpoint in a folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from natdgp.models.seal import WEIGHTS_NAME
from natdgp.training.model import NatGradModel


def load_weights(model: NatGradModel, folder: Path) -> None:
    """Fill a model's variables, and those of its optimizers if it is compiled.

    :param model: of the kind that was saved, compiled or not.
    :param folder: the checkpoint's.
    :raises AssertionError: if the checkpoint lacks one of the variables.
    """
    with _plainly_named(folder) as plain:
        status = model.load_weights(str(plain / WEIGHTS_NAME))
        status.assert_existing_objects_matched()
        status.expect_partial()  # a model that only predicts has no optimizers


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
