"""The cluster's image: an environment with TensorFlow, Horovod and determined, but not natdgp."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = Path(sysconfig.get_path("purelib"))
"""The packages of the running environment."""

ABSENT = ("natdgp", "gpflow", "gpflux")
"""Not in the image (nor are editable installs): the startup hook has to bring them."""

VENDOR_BUILD = "+nv24.3"
"""The image's TensorFlow is its vendor's own build, and says so in its version."""

HOROVODRUN = """\
#!{python}
import sys
from horovod.runner.launch import run_commandline

if __name__ == "__main__":  # it spawns Python processes that import it
    sys.exit(run_commandline())
"""


@dataclass(frozen=True)
class Image:
    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def installed(self) -> Path:
        """Where pip puts what a task installs; what the image came with is elsewhere."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """The versions of these distributions as a task in the image sees them."""
        program = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
        names = list(names)
        shown = subprocess.check_output(
            [self.bin / "python3", "-I", "-c", program, *names], text=True
        )
        return dict(zip(names, shown.split(), strict=True))


def build_image(folder: Path) -> Image:
    """Make an image of links to the running environment's packages: nothing is downloaded.

    Links keep pip from harming the running environment: it resolves them, sees packages outside
    the image and leaves them alone.
    """
    image = Image(folder)
    venv.create(folder, symlinks=True)
    links = folder / "packages"
    links.mkdir()
    for package in ENVIRONMENT.iterdir():
        name = package.name.lower().lstrip("_")
        if package.suffix != ".pth" and not name.startswith(ABSENT):
            (links / package.name).symlink_to(package)
    (image.installed / "image.pth").write_text(f"{links}\n")

    claim_version(image, "tensorflow", image.versions(["tensorflow"])["tensorflow"] + VENDOR_BUILD)
    horovodrun = image.bin / "horovodrun"
    horovodrun.write_text(HOROVODRUN.format(python=image.bin / "python3"))
    horovodrun.chmod(0o755)
    return image


def claim_version(image: Image, name: str, version: str) -> None:
    """Let the image's own copy of a distribution say that it is another version."""
    old = image.versions([name])[name]
    link = image.folder / "packages" / f"{name}-{old}.dist-info"
    copy = link.with_name(f"{name}-{version}.dist-info")
    shutil.copytree(link, copy)
    link.unlink()
    metadata = copy / "METADATA"
    metadata.write_text(
        metadata.read_text("utf-8").replace(f"\nVersion: {old}\n", f"\nVersion: {version}\n", 1),
        "utf-8",
    )
