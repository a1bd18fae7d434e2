"""A trial of the user's own: where its code lies, and the copy that a run trains with."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natdgp.run.durable_files import saving
from natdgp.run.run_folder import FolderError, RunFolder

LIBRARY_TRIALS = ("natdgp.determined:DeepGPTrial", "natdgp.determined.trial:DeepGPTrial")
"""The trial for whoever edits nothing. On this machine the engine does without it."""


def find_trial_code(spec: str, source: Path) -> list[Path]:
    """The files and folders that a trial needs, relative to the source folder.

    The modules at the top, and the folder that its own lies in; or, where it lies at the top
    itself, all packages beside it.

    :param spec: `module:Class`, as Determined's launchers take it.
    :param source: the folder that modules are relative to: the experiment's context.
    :returns: nothing for a module that is installed, which need not be carried along.
    :raises FolderError: if the module is nowhere.
    """
    if spec in LIBRARY_TRIALS:
        return []
    module = spec.partition(":")[0]
    top, *rest = module.split(".")
    package = source.joinpath(top, *rest)
    path = package.with_suffix(".py")
    if os.path.isfile(path) or os.path.isfile(package / "__init__.py"):
        found = {*source.glob("*.py")}
        if (source / top).is_dir():
            found.add(source / top)
        else:
            found |= {init.parent for init in source.glob("*/__init__.py")}
        return sorted(one.relative_to(source) for one in found)
    with contextlib.suppress(ModuleNotFoundError):  # of a parent
        if importlib.util.find_spec(module) is not None:
            return []
    raise FolderError(
        f"the entrypoint names the trial {spec}, but there is no {path}; run the command from the "
        "folder that the module is relative to"
    )


def copy_trial_code(found: list[Path], source: Path, code: Path) -> None:
    """Copy what :func:`find_trial_code` found into a run's folder.

    :raises NotSaved: if it cannot be copied.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    for one in found:
        with saving(code / one):
            if (source / one).is_dir():
                shutil.copytree(source / one, code / one, ignore=ignored)
            else:
                shutil.copy2(source / one, code / one)


@contextlib.contextmanager
def working_in(folder: RunFolder) -> Iterator[None]:
    """Run as in a container: the trial's code is the working directory, and comes first.

    :raises FolderError: if the code is not there.
    """
    before, code = os.getcwd(), str(folder.code.resolve())
    try:
        os.chdir(code)
    except OSError as error:
        raise FolderError(
            f"{folder.code}, the folder of the trial's code, cannot be entered: {error.strerror}; "
            "bring it back, or begin a new run"
        ) from error
    sys.path.insert(0, code)
    try:
        yield
    finally:
        sys.path.remove(code)
        os.chdir(before)


def trial_class_of(spec: str, folder: RunFolder) -> Any:
    """The class of a trial of the user's own, from the code of a run.

    :raises FolderError: if the module has no such trial, or if Determined is not installed.
    """
    try:
        from natdgp.determined.local_trial import is_trial
    except ModuleNotFoundError as error:
        raise FolderError(
            f"the entrypoint names the trial {spec}, which needs Determined ({error}); install "
            f"natdgp[cluster], or name {LIBRARY_TRIALS[0]}"
        ) from error
    name, _, class_name = spec.partition(":")
    own = vars(importlib.import_module(name))
    if not is_trial(found := own.get(class_name)):
        trials = [one for one in own if is_trial(own[one]) and own[one].__module__ == name]
        raise FolderError(
            f"the entrypoint names the trial {spec}, but {class_name} is no trial in {name}; "
            f"it has these: {', '.join(trials) or 'none'}"
        )
    return found
