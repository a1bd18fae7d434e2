from collections.abc import Iterator

import gpflow
import pytest


@pytest.fixture
def gpflow_defaults() -> Iterator[None]:
    """A context of GPflow's global defaults, for tests that change them."""
    with gpflow.config.as_context():
        yield
