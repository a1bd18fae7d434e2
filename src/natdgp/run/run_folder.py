"""A run's folder: what lies where, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from natdgp.checkpoint.checksums import RECORD_NAME, DamagedCheckpoint, verify_checksums
from natdgp.checkpoint.record import ModelRecord, NewerFormat
from natdgp.run.durable_files import saving, settle, settle_all, write_whole
from natdgp.run.process_lock import LOCK, ProcessLock

CONFIG = "config.yaml"
"""What makes a folder that of a run."""

SEARCH_CONFIG = "search.yaml"
"""What makes a folder that of a search."""

PATIENCE = 10.0
"""Seconds for which the ranks of a command that was killed may take to end."""

_CHECKPOINT = re.compile("step-([0-9]{8,})")


class FolderError(ValueError):
    """A run folder that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a run."""

    path: Path
    steps: int
    """Training steps behind it."""


def claim(root: Path, inside: Iterable[str]) -> Path:
    """Make a new folder with others inside it; returns its absolute path.

    :raises FolderError: if something is there already (nothing is ever overwritten), or if it
        cannot be made or read back.
    """
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise FolderError(
                f"{root} exists already; {_way_on(root)}choose another folder with --out"
            )
        for name in inside:
            (root / name).mkdir(parents=True)
    except OSError as error:
        raise FolderError(
            f"{root} cannot be made: {error.strerror}; choose another folder with --out"
        ) from error
    return root.resolve()


def _way_on(root: Path) -> str:
    """How to go on with what a folder holds, if it is a run or a search."""
    for command, config in {"train": CONFIG, "search": SEARCH_CONFIG}.items():
        if (root / config).is_file():
            return f"go on with it by `natdgp {command} --resume {shlex.quote(str(root))}`, or "
    return ""


def next_free(parent: Path, name: str) -> Path:
    """The first free path among `name`, `name-2`, `name-3`, and so on."""
    candidates = (parent / (name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not os.path.exists(path))


def shown(root: Path) -> Path:
    """A path as a user in the current directory would write it."""
    here = Path.cwd()
    return root.relative_to(here) if root.is_relative_to(here) else root


class RunFolder:
    """Everything that a run writes, and nothing else, lies under one folder."""

    def __init__(self, root: Path) -> None:
        """:param root: absolute, because a run works in another directory than it started from."""
        self.root = root
        self.config = root / CONFIG  # resolved, itself ready for `natdgp train`
        self.manifest = root / "manifest.json"  # versions, seed, commit, machine and timings
        self.metrics = root / "metrics.jsonl"  # training and validation metrics, an object a line
        self.summary = root / "summary.json"  # the figures of a completed run
        self.stop_decisions = root / "stop-decision.json"  # of the search that it is a trial of
        self.lock = root / LOCK  # held by the one command that trains, and by its ranks
        self.best = root / "best"  # a link to the best checkpoint
        self.code = root / "code"  # of a trial of the user's own; nothing for the library's
        self.tensorboard = root / "tensorboard"
        self._checkpoints = root / "checkpoints"

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """Claim a new folder.

        :raises FolderError: if something is there already (nothing is ever overwritten), or if it
            cannot be made or read back.
        """
        return cls(claim(root, ("checkpoints", "code", "tensorboard")))

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open the folder of an earlier run.

        :raises FolderError: if it is not one.
        """
        if not os.path.isfile(root / CONFIG):
            raise FolderError(f"{root} is not the folder of a run: it has no {CONFIG}")
        return cls(root.resolve())

    @contextlib.contextmanager
    def occupied(self) -> Iterator[ProcessLock]:
        """Keep every other command out of the folder.

        :raises FolderError: if another one is in it, or if the folder is not fit to train in.
        :raises NotSaved: if the folder cannot be locked.
        """
        lock = ProcessLock(self.lock)
        with saving(self.lock):
            held = lock.hold(PATIENCE)
        if not held:
            raise FolderError(
                f"{self.shown} is being trained by another command; end it and its processes, or "
                "wait until it ends"
            )
        try:
            self._check_places()
            yield lock
        finally:
            lock.release()

    def _check_places(self) -> None:
        """Refuse a folder in which something stands where a run has to write or read."""
        if os.path.lexists(self._checkpoints) and not self._checkpoints.is_dir():
            raise FolderError(
                f"{self._checkpoints} leads to no folder; bring the folder back, or delete that"
            )
        if os.path.lexists(self.best) and not self.best.is_symlink():
            raise FolderError(
                f"{self.best} is no link to a checkpoint; give it another name, or delete it"
            )

    def discard_unless_begun(self) -> None:
        """Delete the folder if the run left no result in it, so that its name is free again.

        Not one that another command is in by now.
        """
        lock = ProcessLock(self.lock)
        if lock.hold():
            if not self.checkpoints() and not any(read_json_lines(self.metrics)):
                shutil.rmtree(self.root)
            lock.release()

    @property
    def shown(self) -> Path:
        """The root as a user in the current directory would write it."""
        return shown(self.root)

    @property
    def former(self) -> Path:
        """The place for the reports that a run has made, should it begin anew."""
        return next_free(self.root, "former")

    @property
    def reports(self) -> list[Path]:
        """All that tells of training; nothing before a run has trained."""
        told = [path for path in (self.metrics, self.summary) if path.is_file()]
        return [*told, *self.tensorboard.glob("*")]

    def set_reports_aside(self) -> None:
        """Move what an earlier beginning of the run has reported out of the way of a new one.

        :raises NotSaved: if it cannot be moved.
        """
        former = self.former
        for path in self.reports:
            with saving(former):
                place = former / path.relative_to(self.root)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration, which makes this the folder of a run."""
        write_yaml(self.config, config)

    def checkpoint(self, steps: int) -> Checkpoint:
        """The place of the checkpoint after so many steps, whether it exists or not."""
        return Checkpoint(self._checkpoints / f"step-{steps:08d}", steps)

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints that have a record of their model, oldest first."""
        return [one for one in self._named_checkpoints() if (one.path / RECORD_NAME).is_file()]

    def _named_checkpoints(self) -> list[Checkpoint]:
        """All that has a checkpoint's name, whatever it is, oldest first."""
        found = (
            Checkpoint(path, int(name[1]))
            for path in self._checkpoints.glob("*")
            if (name := _CHECKPOINT.fullmatch(path.name))
        )
        return sorted(found, key=lambda checkpoint: checkpoint.steps)

    @contextlib.contextmanager
    def saving(self, checkpoint: Checkpoint) -> Iterator[Path]:
        """Write a checkpoint into an empty folder, which takes its place when it is whole.

        :raises NotSaved: if the disk refuses; nothing is there then.
        """
        aside = self._aside(checkpoint)
        self._clear_leftovers()
        with saving(checkpoint.path):
            try:
                aside.mkdir(parents=True)
                yield aside
                settle_all(aside)
                os.replace(aside, checkpoint.path)
                settle(checkpoint.path.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def remove(self, checkpoint: Checkpoint) -> None:
        """Delete a checkpoint, which is out of sight before its first file is gone."""
        shutil.rmtree(checkpoint.path.rename(self._aside(checkpoint)))

    def _aside(self, checkpoint: Checkpoint) -> Path:
        """A place out of sight for what is not yet, or no longer, a checkpoint."""
        return checkpoint.path.with_name(f".{checkpoint.path.name}.partial")

    def _clear_leftovers(self) -> None:
        """Delete what was out of sight when a run was killed."""
        for path in self._checkpoints.glob(".step-*.partial"):
            with saving(path):
                shutil.rmtree(path)

    def set_damaged_aside(self) -> list[DamagedCheckpoint]:
        """Take the checkpoints that are not as they were written out of the run's way.

        They keep lying beside the others, under other names. Returns what is wrong with each.

        :raises FolderError: if a newer natdgp wrote one of the others.
        :raises NotSaved: if one cannot be renamed.
        """
        problems = []
        for path in (checkpoint.path for checkpoint in self._named_checkpoints()):
            try:
                verify_checksums(path)
                ModelRecord.read(path)
            except NewerFormat as error:
                raise FolderError(str(error)) from error
            except DamagedCheckpoint as problem:
                problems.append(problem)
                with saving(path):
                    path.rename(next_free(path.parent, f"damaged-{path.name}"))
        return problems


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a YAML file whole or not at all."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump(dict(content), text)
    write_whole(path, text.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    :raises ValueError: for a number that is not finite, which JSON has no word for.
    """
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def link_to(link: Path, target: Path) -> None:
    """Make a symbolic link, or a new one in the place of an old one.

    :raises NotSaved: if the disk refuses; the old one is still there.
    """
    aside = link.with_name(f".{link.name}.partial")
    with saving(link):
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(target, link.parent))
        os.replace(aside, link)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a last line cut short by a kill is left out.

    :raises FolderError: at a line that holds no object.
    """
    if path.is_file():
        *lines, _ = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            yield _object_in(line, f"{path}, line {number}", "delete that line")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run.

    :raises FolderError: if there is none in it.
    """
    return _object_in(path.read_bytes(), str(path), "restore or delete that file")


def _object_in(text: bytes, where: str, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise FolderError(f"{where}: this is no JSON: {error}; {remedy}") from error
    if not isinstance(content, dict):
        raise FolderError(f"{where}: this is no JSON object; {remedy}")
    return content
