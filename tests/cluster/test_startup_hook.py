"""startup-hook.sh on its own: where it fails, and when it has something to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.container import basic_environment, run_trial
from tests.cluster.flights import short_flights
from tests.cluster.image import Image, build_image, claim_version
from tests.cluster.master import StandInMaster

REPOSITORY = Path(__file__).parents[2]


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
    assert "depends on numpy<2" in task.log, "pip's own reason is shown"
    assert "New trial runner" not in task.log, "the launcher must not start"
    assert unfit.versions(["numpy"]) == {"numpy": "2.1.0"}


def test_older_code_under_the_same_version_is_replaced(image: Image, tmp_path: Path) -> None:
    source_hook(image, tmp_path)
    installed = image.installed / "natdgp" / "__init__.py"
    current = installed.read_text()
    assert current == (REPOSITORY / "src" / "natdgp" / "__init__.py").read_text()
    installed.write_text(f"{current}# older\n")
    assert "installed beside" in source_hook(image, tmp_path)
    assert installed.read_text() == current
    assert "nothing to do" in source_hook(image, tmp_path)


def source_hook(image: Image, home: Path) -> str:
    """What the hook says when a shell in the image sources it."""
    return subprocess.check_output(
        ["bash", "-c", "source startup-hook.sh"],
        cwd=REPOSITORY,
        env=basic_environment(image, home),
        text=True,
        timeout=180,
    )
