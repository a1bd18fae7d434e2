from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.container import Task, run_trial, why_not_here
from tests.cluster.flights import short_flights
from tests.cluster.image import Image, build_image
from tests.cluster.master import StandInMaster
from tests.cluster.submission import pack
from tests.conftest import REPOSITORY


@pytest.fixture(scope="session")
def context() -> str:
    """This repository, as `det experiment create` uploads it."""
    return pack(REPOSITORY)


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
    image: Image, storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StandInMaster, Task]]:
    """The library's own trial on one slot, which nothing interrupts; no `trials` folder came along.

    Other tests compare with it what a trial of a user's own does.
    """
    config = short_flights(storage)
    config["entrypoint"] = config["entrypoint"].replace("trials.deep_gp", "natdgp.determined")
    with StandInMaster(config, pack(REPOSITORY, without="trials")) as master:
        yield master, run_trial(image, master, tmp_path_factory.mktemp("completed") / "task")
