from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.container import Task, run_trial, why_not_here
from tests.cluster.flights import short_flights
from tests.cluster.image import Image, build_image
from tests.cluster.master import StandInMaster
from tests.cluster.submission import pack


@pytest.fixture(scope="session")
def context() -> str:
    """This repository, as `det experiment create` uploads it."""
    return pack(Path(__file__).parents[2])


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """One image for all tasks, so that only the first one's startup hook has work to do."""
    if reason := why_not_here():
        pytest.skip(reason)
    return build_image(tmp_path_factory.mktemp("cluster") / "image")


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def completed(
    image: Image, context: str, storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StandInMaster, Task]]:
    """A trial on one slot that nothing interrupts."""
    with StandInMaster(short_flights(storage), context) as master:
        yield master, run_trial(image, master, tmp_path_factory.mktemp("completed") / "task")
