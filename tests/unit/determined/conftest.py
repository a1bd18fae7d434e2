"""The benches of the integration tests, for unit tests that run whole trials."""

from tests.integration.conftest import bench, record

__all__ = ["bench", "record"]
