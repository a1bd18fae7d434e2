"""startup-hook.sh where it cannot do its work. What it does otherwise, every trial here shows."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.container import run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import Image, build_image, claim_version
from tests.cluster.master import StandInMaster


def test_an_image_whose_numpy_would_have_to_change_ends_the_task(
    image: Image, context: str, tmp_path: Path
) -> None:
    """`image` is asked for only to skip where no container can be made."""
    unfit = build_image(tmp_path / "image")
    claim_version(unfit, "numpy", "2.1.0")
    with StandInMaster(short_flights(tmp_path), context) as master:
        task = run_trial(unfit, master, tmp_path / "task")
    assert task.exit_code != 0, task.log
    assert "natdgp cannot be installed in this image" in task.log
    assert "numpy==2.1.0" in task.log
    assert "New trial runner" not in task.log, "the launcher must not start"
    assert unfit.versions(["numpy"]) == {"numpy": "2.1.0"}
