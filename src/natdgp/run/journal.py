"""The metrics of a run, written as they come and read back when it is resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from natdgp.run.durable_files import append_line, write_whole
from natdgp.run.run_folder import Checkpoint, FolderError, read_json_lines
from natdgp.training.diagnosis import TrainingFailure
from natdgp.training.loop import Plan

TRAINING = "training"
VALIDATION = "validation"


class Journal:
    """`metrics.jsonl`: one object a line, `{"group", "steps_completed", "time", "metrics"}`."""

    def __init__(self, path: Path, plan: Plan, *, up_to: int) -> None:
        """Open the journal of a run that stands at a step; the file stays as it is until a report.

        :param path: the file; it need not exist.
        :param plan: names the validation metric that decides which step is best.
        :param up_to: steps of the checkpoint that the run goes on from, or -1 without one. What was
            written beyond it belongs to steps that will be taken again, and is dropped.
        :raises FolderError: if the file holds something else than reports.
        """
        self.validations: dict[int, Mapping[str, float]] = {}
        """All figures of a validation by steps."""
        self._path = path
        self._plan = plan
        kept = []
        for number, entry in enumerate(read_json_lines(path), start=1):
            try:
                if entry["steps_completed"] <= up_to:
                    kept.append(entry)
                    self._note(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise FolderError(
                    f"{path}, line {number}: this is no report of the run: {error!r}; delete that "
                    "line"
                ) from error
        self._kept: list[dict[str, Any]] | None = kept

    def _note(self, entry: Mapping[str, Any]) -> None:
        if entry["group"] == VALIDATION:
            float(entry["metrics"][self._plan.judge])
            self.validations[entry["steps_completed"]] = entry["metrics"]

    def write(self, group: str, steps_completed: int, metrics: Mapping[str, Any]) -> None:
        """Append one report, and have it on disk when this returns.

        A validation that the run repeats, as a session that was killed had made it without saving
        again, is in the file already.

        :raises TrainingFailure: for a figure that is not finite; nothing is written.
        """
        if group == VALIDATION and steps_completed in self.validations:
            return
        plain = {name: float(value) for name, value in metrics.items()}
        for name, value in plain.items():
            if not math.isfinite(value):
                raise TrainingFailure(f"{name} is {value} in {group} after step {steps_completed}")
        entry = {
            "group": group,
            "steps_completed": steps_completed,
            "time": time.time(),
            "metrics": plain,
        }
        if self._kept is not None:  # not before: a run that cannot be begun loses no report
            write_whole(self._path, "".join(json.dumps(one) + "\n" for one in self._kept))
            self._kept = None
        append_line(self._path, json.dumps(entry))
        self._note(entry)

    def best_first(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Those that were validated, best first; of equally good ones, in the order they have."""
        return sorted(
            (one for one in checkpoints if one.steps in self.validations),
            key=lambda one: self.validations[one.steps][self._plan.judge],
            reverse=not self._plan.smaller_is_better,
        )

    def best(self, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
        """The best of those that were validated, or else the latest."""
        return next(iter([*self.best_first(checkpoints), *checkpoints[-1:]]), None)
