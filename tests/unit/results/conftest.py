from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.integration.conftest import bench

__all__ = ["bench", "eager"]


@pytest.fixture
def eager() -> Iterator[None]:
    """Without graphs, whose tracing takes longer than the few steps of a test."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
