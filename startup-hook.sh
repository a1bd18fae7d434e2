# Determined sources this in every container of an experiment, in the context directory, before
# anything of ours runs. It installs natdgp from there with what the image lacks of natdgp's
# dependencies, and leaves the image's own stack as it is. When it fails, the task ends.

"${DET_PYTHON_EXECUTABLE:-python3}" - <<'PY'
import importlib
import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile

# Replacing one of these under the others, or under the image's CUDA, breaks the container.
THE_IMAGES = ["tensorflow", "tensorflow-probability", "keras", "horovod", "determined"]
THE_IMAGES += ["numpy", "h5py", "protobuf"]


def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_installed(source):
    """Whether natdgp is here already, file for file: an equal version may still be older code."""
    if version_of("natdgp") is None:
        return False
    here = pathlib.Path(importlib.metadata.distribution("natdgp").locate_file("natdgp"))
    files = [file.relative_to(source) for file in source.rglob("*.py")]
    return all(
        (here / file).is_file() and (here / file).read_bytes() == (source / file).read_bytes()
        for file in files
    )


def install(kept):
    """Install the context directory; pip gives up if it would have to change what is kept."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(kept))
        constraints.flush()
        return subprocess.run(
            [sys.executable, "-m", "pip", "install", "--constraint", constraints.name, ".[cluster]"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


if is_installed(pathlib.Path("src/natdgp")):
    print("natdgp", version_of("natdgp"), "is installed already: nothing to do")
else:
    kept = [f"{name}=={version}" for name in THE_IMAGES if (version := version_of(name))]
    pip = install(kept)
    if pip.returncode != 0:
        sys.exit(
            f"{pip.stdout}\nnatdgp cannot be installed in this image; pip says above why.\n"
            f"It had to keep the image's {', '.join(kept)}.\n"
            "An image for TensorFlow 2.15 fits, such as determinedai/tensorflow-ngc:0.38.1."
        )
    importlib.invalidate_caches()
    print("natdgp", version_of("natdgp"), "installed beside the image's", ", ".join(kept))
PY
