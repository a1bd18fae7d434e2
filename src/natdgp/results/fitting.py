"""Fits a deep GP in Python: to rows in memory, by the engine's own loop."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from natdgp.checkpoint.record import ModelRecord
from natdgp.checkpoint.weights import write_checkpoint
from natdgp.data.arrays import as_table, file_facts, joined
from natdgp.data.data_settings import SplitSettings
from natdgp.data.prepare import Numbers
from natdgp.data.split import Indices, divide
from natdgp.data.table import FloatArray, Table
from natdgp.models.inducing import ROWS_PER_CENTRE
from natdgp.results.trained import TrainedModel
from natdgp.settings.schema import Settings
from natdgp.training.callbacks import build_callbacks
from natdgp.training.loop import Loop, Metrics, Plan
from natdgp.training.model import DeepGPModel
from natdgp.training.task import Task
from natdgp.training.training_settings import LARGER_IS_BETTER

BATCH_SIZE = 1024
"""B by default, or all training rows if there are fewer."""
STEPS, PASSES = (1000, 5000), 20
"""Steps by default: as many as make 20 passes over the rows, but within these bounds."""
VALIDATIONS = 20
"""How often a fit validates."""
PATIENCE = 5
"""Validations without improvement that end a fit, by default."""

HeldOut = Mapping[str, "float | Table | None"]
"""`validation` and `test`: each a share of the rows, rows of their own, or None."""


def fit(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    validation: Any = 0.1,
    test: Any = None,
    features: Sequence[str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    out: str | Path | None = None,
    **settings: Any,
) -> TrainedModel:
    """Fit a deep GP. ::

        model = natdgp.fit(frame, target="y", model={"layers": 2}, seed=1)
        prediction = model.predict(frame)

    Equal calls on one machine give equal bits.

    :param data: a pair (X, Y) of arrays, X [N, D] and Y [N] or [N, Q]; a pandas or polars frame or
        a mapping of columns; or the path of a CSV or Parquet file. In original units.
    :param target: the columns to predict.
    :param validation: the rows that tell which parameters are the best and when to stop: a share
        of the rows, or rows of their own, given as `data` is. None holds no rows out, and lets the
        bound on the training rows decide.
    :param test: rows to report on at the end, likewise; their figures are `test_figures` of the
        model. By default there are none.
    :param features: the columns to predict from; by default all but the targets.
    :param steps: the most training steps; by default those of 20 passes over the training rows,
        but at least 1000 and at most 5000. There are about 20 validations.
    :param seed: of the data's order, of initial values and of the sampling noise.
    :param progress: whether to show a progress bar.
    :param out: a new folder to keep the run in: its validations (`metrics.jsonl`) and its best
        checkpoint so far, which :func:`natdgp.load` takes.
    :param settings: the hyperparameters of an experiment file, by the same names:
        `global_batch_size` (by default 1024 at most), `model`, `natural_gradient`, `adam`,
        `early_stopping` (by default `{"patience": 5}`; None to take all steps),
        `reduce_lr_on_plateau` and `evaluation`. There are never more inducing points than distinct
        training rows, whatever `model` says.
    :returns: the model with the parameters of the best validation, by `val_nlpd` or by what early
        stopping monitors. An interrupt (Ctrl-C) ends the training and returns the best so far.
    :raises SettingsError: with all wrong settings together.
    :raises DataError: if the rows cannot be used.
    :raises TrainingFailure: if training breaks down; it says why, and what to change.
    :raises FileExistsError: if there is something in `out`.
    """
    source = file_facts(data, target, features) if isinstance(data, (str, Path)) else {}
    table = as_table(data, target, features)

    def like_data(rows: Any) -> Table:
        if isinstance(rows, tuple):
            return as_table(rows, target, features)
        return as_table(rows, table.targets, table.features)

    held_out = {"validation": validation, "test": test}
    return fit_table(
        table,
        {name: x if x is None or _is_share(x) else like_data(x) for name, x in held_out.items()},
        source=source,
        steps=steps,
        seed=seed,
        progress=progress,
        out=out,
        settings=settings,
    )


def fit_table(
    table: Table,
    held_out: HeldOut,
    *,
    settings: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = False,
    out: str | Path | None = None,
) -> TrainedModel:
    """As :func:`fit`, of a table.

    :param held_out: what is validated by, and what is reported on.
    :param settings: the hyperparameters that are not left to their defaults.
    :param source: the settings of the source, but for the split; by default those of arrays.
    """
    for name, number, least in (("steps", steps, 1), ("seed", seed, 0)):
        if number is not None and not (isinstance(number, int) and number >= least):
            raise ValueError(f"{name} is {number!r}; give a whole number, {least} or more")
    holds_out = held_out["validation"] is not None
    chosen = _settings(table, held_out, settings, source or {"source": "arrays"})
    table, X = _divided(table, held_out, chosen.data.split)
    chosen = _fitted_to_rows(chosen, X, chooses_batch_size="global_batch_size" not in settings)
    passes = PASSES * math.ceil(len(X) / chosen.global_batch_size)
    length = steps or min(max(STEPS[0], passes), STEPS[1])
    judge = "val_nlpd" if holds_out else "val_loss"
    if chosen.early_stopping is not None:
        judge = chosen.early_stopping.monitor
    plan = Plan(
        length=length,
        report_every=max(1, length // 200),
        validate_every=max(1, length // VALIDATIONS),
        save_policy="none",
        steps_per_epoch=math.ceil(len(X) / chosen.global_batch_size),
        judge=judge,
        smaller_is_better=judge not in LARGER_IS_BETTER,
    )
    task = Task(chosen, seed=seed, table=table)
    fitted = _train(task, plan, progress=progress, out=None if out is None else Path(out))
    if len(task.prepared.test):
        fitted.test_figures = fitted.evaluate_rows(task.prepared.test)
    return fitted


def _settings(
    table: Table, held_out: HeldOut, given: Mapping[str, Any], source: Mapping[str, Any]
) -> Settings:
    """What was given, checked, with the defaults that need no look at the rows."""
    shares = {name: _plain(x) for name, x in held_out.items() if _is_share(x)}
    chosen = {
        "global_batch_size": min(len(table.X), BATCH_SIZE),
        "early_stopping": {"patience": PATIENCE},
        **_plain(given),
    }
    if held_out["validation"] is None and isinstance(chosen["early_stopping"], Mapping):
        chosen["early_stopping"] = {"monitor": "val_loss", **chosen["early_stopping"]}
    split = {"validation": 0.0, "test": 0.0, **shares}
    return Settings.read(chosen, {**source, "split": split})


def _divided(table: Table, held_out: HeldOut, split: SplitSettings) -> tuple[Table, FloatArray]:
    """The table, which says what each row is for if not the split alone does; and training inputs.

    Where shares alone divide the rows, they are divided as those of an experiment file.
    """
    given = {name: rows for name, rows in held_out.items() if isinstance(rows, Table)}
    shares = {name: float(x) for name, x in held_out.items() if _is_share(x)}
    if "validation" in shares and not given:
        return table, table.X[divide(len(table.X), split).train]
    parts = {"train": table, **given}
    for name, share in shares.items():
        if share or name == "validation":
            two = divide(len(table.X), SplitSettings(validation=share, test=0.0, seed=split.seed))
            parts[name], parts["train"] = _rows(table, two.validation), _rows(table, two.train)
    if held_out["validation"] is None:
        parts["validation"] = parts["train"]
    return joined(parts), parts["train"].X


def _rows(table: Table, indices: Indices) -> Table:
    return dataclasses.replace(table, X=table.X[indices], Y=table.Y[indices])


def _fitted_to_rows(settings: Settings, X: FloatArray, *, chooses_batch_size: bool) -> Settings:
    """The settings, with no more inducing points or rows of a batch than the rows allow."""
    if chooses_batch_size:
        settings = settings.model_copy(update={"global_batch_size": min(len(X), BATCH_SIZE)})
    wanted = settings.model.inducing_points_per_layer
    X = X.astype(settings.model.dtype)
    few = X[: ROWS_PER_CENTRE * max(wanted)]  # as a rule enough to see that there are enough
    most = len(np.unique(few, axis=0))
    if most < max(wanted):
        most = len(np.unique(X, axis=0))
    if most < max(wanted):
        lowered = {"inducing_points": tuple(min(M, most) for M in wanted)}
        model = settings.model.model_copy(update=lowered)
        settings = settings.model_copy(update={"model": model})
    return settings


def _is_share(given: object) -> TypeGuard[float]:
    return isinstance(given, Real)


def _plain(value: Any) -> Any:
    """Settings with NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _train(task: Task, plan: Plan, *, progress: bool, out: Path | None) -> TrainedModel:
    folder = None if out is None else _RunFolder(out)
    model = task.compiled_model()
    record = task.model_record(model)
    with _Bar(plan.length, shown=progress) as bar:
        keeper = _BestKeeper(model, record, plan, bar, folder)
        loop = Loop(
            model,
            task.training_data,
            task.validation_data(),
            plan,
            keeper,
            build_callbacks(task.settings, plan.steps_per_epoch),
        )
        try:
            loop.run()
            bar.show(status="finished")
        except KeyboardInterrupt:
            if not keeper.parameters:
                raise
            warnings.warn(
                f"interrupted after step {loop.progress.step} of {plan.length}: the model is that "
                f"of step {keeper.step}, the best of {len(keeper.history)} validations",
                stacklevel=4,
            )
    return TrainedModel.of_parameters(record, keeper.parameters, keeper.history)


class _BestKeeper:
    """The loop's driver: keeps all validations, and the parameters of the best."""

    def __init__(
        self,
        model: DeepGPModel,
        record: ModelRecord,
        plan: Plan,
        bar: _Bar,
        folder: _RunFolder | None,
    ) -> None:
        self._model = model
        self._record = record
        self._judge = plan.judge
        self._sign = 1 if plan.smaller_is_better else -1
        self._bar = bar
        self._folder = folder
        self._best = math.inf
        self.step = 0
        """That of the best validation."""
        self.parameters: list[Numbers] = []
        """Those of the best validation, in the order of the deep GP's variables."""
        self.history: list[dict[str, float]] = []

    def status(self, status: str) -> None:
        self._bar.show(status=status)

    def training(self, step: int, metrics: Metrics) -> None:
        self._bar.show(step, {"elbo": metrics["elbo_per_datum"]})

    def validation(self, step: int, metrics: Metrics) -> None:
        figures = {name: x for name, x in metrics.items() if name.startswith("val_")}
        self.history.append({"step": step, **figures})
        value = self._sign * figures[self._judge]
        is_best = value < self._best
        if is_best:
            parameters = [one.numpy() for one in self._model.deep_gp.variables]
            self._best, self.step, self.parameters = value, step, parameters
        if self._folder is not None:
            self._folder.note(self.history[-1])
            if is_best:
                self._folder.keep(step, self._model, self._record)
        self._bar.show(step, {self._judge: figures[self._judge]})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Nothing: a fit does not go on from where it was interrupted."""

    def wants_to_end(self) -> bool:
        return False


class _RunFolder:
    """The validations of a fit, and the best checkpoint so far, whole at any time."""

    def __init__(self, root: Path) -> None:
        """:raises FileExistsError: if there is something in it."""
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise FileExistsError(f"{root} holds something already; choose another folder as out")
        self._root = root

    def note(self, validation: Mapping[str, float]) -> None:
        with (self._root / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(validation) + "\n")

    def keep(self, step: int, model: DeepGPModel, record: ModelRecord) -> None:
        best, link = self._root / "best", self._root / "best.new"
        before = best.resolve() if best.exists() else None
        checkpoint = Path("checkpoints") / f"step-{step:08}"
        write_checkpoint(model, record, self._root / checkpoint)
        link.symlink_to(checkpoint, target_is_directory=True)
        os.replace(link, best)
        if before is not None:
            shutil.rmtree(before)


class _Bar:
    """A line that shows how far a fit is and how well it does, on the standard error."""

    def __init__(self, length: int, *, shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task("starting", total=length, figures="")
        self._figures: dict[str, float] = {}

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(
        self,
        step: int | None = None,
        figures: Mapping[str, float] = MappingProxyType({}),
        status: str | None = None,
    ) -> None:
        self._figures |= figures
        told = "  ".join(f"{name} {value:.4g}" for name, value in self._figures.items())
        self._progress.update(self._task, completed=step, description=status, figures=told)
