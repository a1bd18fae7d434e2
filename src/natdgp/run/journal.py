"""The metrics of a run, written as they come and read back when it is resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natdgp.run.durable_files import append_line, write_whole
from natdgp.run.run_folder import FolderError, read_json_lines
from natdgp.training.diagnosis import TrainingFailure

TRAINING = "training"
VALIDATION = "validation"


class Journal:
    """`metrics.jsonl`: one object a line, `{"group", "steps_completed", "time", "metrics"}`."""

    def __init__(self, path: Path, *, up_to: int, metric: str, smaller_is_better: bool) -> None:
        """Open the journal of a run that stands at a step; the file stays as it is until a report.

        :param path: the file; it need not exist.
        :param up_to: steps of the checkpoint that the run goes on from, or -1 without one. What was
            written beyond it belongs to steps that will be taken again, and is dropped.
        :param metric: the validation metric that decides which step is best.
        :param smaller_is_better: its direction.
        :raises FolderError: if the file holds something else than reports.
        """
        self._path = path
        self._metric = metric
        self._sign = 1 if smaller_is_better else -1
        self._validations: dict[int, float] = {}
        self._figures: dict[int, Mapping[str, float]] = {}
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

    def _cut(self) -> None:
        # Not before there is a report to take their place: a run that cannot be begun loses none.
        if self._kept is not None:
            write_whole(
                self._path,
                "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in self._kept),
            )
            self._kept = None

    def _note(self, entry: Mapping[str, Any]) -> None:
        if entry["group"] == VALIDATION:
            step = entry["steps_completed"]
            self._validations[step] = float(entry["metrics"][self._metric])
            self._figures[step] = entry["metrics"]

    def write(self, group: str, steps_completed: int, metrics: Mapping[str, Any]) -> None:
        """Append one report, and have it on disk when this returns.

        A validation that the run repeats, as a session that was killed had made it without saving
        again, is in the file already.

        :raises TrainingFailure: for a figure that is not finite; nothing is written.
        """
        if group == VALIDATION and steps_completed in self._validations:
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
        self._cut()
        append_line(self._path, json.dumps(entry, allow_nan=False))
        self._note(entry)

    @property
    def last_validation(self) -> int | None:
        """Steps behind the latest validation."""
        return max(self._validations, default=None)

    def value_at(self, steps: int) -> float | None:
        """The deciding metric after so many steps, if a validation was made there."""
        return self._validations.get(steps)

    def figures_at(self, steps: int) -> Mapping[str, float]:
        """All figures of the validation after so many steps; none if there was none."""
        return self._figures.get(steps, {})

    def rank(self, value: float) -> float:
        """A key that sorts the best value first."""
        return self._sign * value
