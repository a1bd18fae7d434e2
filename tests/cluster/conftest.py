from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.container import why_not_here
from tests.cluster.image import Image, build_image
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
