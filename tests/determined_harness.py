"""A trial under Determined's own controller and sequencer, in this process, without a master."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import determined as det
from determined import core, load

from natdgp.determined.trial import DeepGPTrial
from natdgp.settings.experiment import Experiment

Reports = dict[int, dict[str, float]]


class _Train(core.DummyTrainContext):
    def __init__(self, trial: RecordedTrial) -> None:
        super().__init__(tensorboard_path=trial.folder / "tensorboard")
        self._trial = trial

    def _get_last_validation(self) -> int | None:
        return max(self._trial.reports["validation"], default=None)

    def get_experiment_best_validation(self) -> float | None:
        values = [one[self._trial.metric] for one in self._trial.reports["validation"].values()]
        return min(values, default=None)

    def _report_trial_metrics(
        self, group: str, steps_completed: int, metrics: dict[str, Any], batch_metrics: Any = None
    ) -> None:
        plain = {name: float(value) for name, value in metrics.items()}
        self._trial.reports[group][steps_completed] = plain
        if group == "training" and steps_completed == self._trial.preempt_at:
            self._trial.is_preempted = True

    def upload_tensorboard_files(self, *_: Any, **__: Any) -> None:
        """They stay where they are."""

    def report_early_exit(self, reason: core.EarlyExitReason) -> None:
        self._trial.early_exit = reason


class _Checkpoints(core.CheckpointContext):
    def __init__(self, trial: RecordedTrial) -> None:
        self._trial = trial

    @contextlib.contextmanager
    def store_path(
        self, metadata: dict[str, Any] | None = None, *, shard: bool = False
    ) -> Iterator[tuple[Path, str]]:
        steps = (metadata or {})["steps_completed"]
        path = self._trial.checkpoint(steps)
        path.mkdir(parents=True)
        (path / "metadata.json").write_text(json.dumps(metadata))
        yield path, path.name
        self._trial.saved.append(steps)

    @contextlib.contextmanager
    def restore_path(self, storage_id: str, *args: Any, **kwargs: Any) -> Iterator[Path]:
        yield Path(storage_id)


class _Preempt(core.DummyPreemptContext):
    trial: RecordedTrial

    def should_preempt(self, auto_ack: bool = True) -> bool:
        return self.trial.is_preempted


class _Searcher(core.DummySearcherContext):
    unit: core.Unit

    def get_configured_units(self) -> core.Unit:
        return self.unit

    def _operations(
        self, searcher_mode: core.SearcherMode = core.SearcherMode.WorkersAskChief
    ) -> Iterator[core.SearcherOperation]:
        yield _Operation(self._length, is_chief=True)


class _Operation(core.DummySearcherOperation):
    def report_progress(self, length: float) -> None:
        """Nobody asks."""

    def report_completed(self, searcher_metric: float) -> None:
        self._completed = True


@dataclass
class RecordedTrial:
    """What a master would know of a trial."""

    experiment: Experiment
    folder: Path
    trial_class: type[DeepGPTrial] = DeepGPTrial
    reports: dict[str, Reports] = field(default_factory=lambda: {"training": {}, "validation": {}})
    saved: list[int] = field(default_factory=list)
    """Steps of the checkpoints."""
    preempt_at: int | None = None
    """After these training steps the trial is asked to pause."""
    is_preempted: bool = False
    on_cluster: bool = False
    """Whether it is told that it runs on one."""
    early_exit: core.EarlyExitReason | None = None

    @property
    def metric(self) -> str:
        """The searcher's; smaller is better."""
        return str(self.experiment.config["searcher"]["metric"])

    def checkpoint(self, steps: int) -> Path:
        """The folder of one."""
        return self.folder / f"step-{steps}"

    def run(self, parent: Path | None = None) -> RecordedTrial:
        """Run it to its end, or to a pause, from its latest checkpoint.

        :param parent: another trial's checkpoint, to begin with.
        :raises determined.InvalidHP: as a local run of Determined's does.
        """
        self.is_preempted = False
        latest = parent or (self.checkpoint(self.saved[-1]) if self.saved else None)
        env = self._environment(latest, 0 if parent or not self.saved else self.saved[-1])
        backend = det._DistributedBackend()
        load.get_trial_controller_class(self.trial_class).pre_execute_hook(env, backend)
        distributed = core.DummyDistributedContext()
        ((unit, length),) = self.experiment.config["searcher"]["max_length"].items()
        searcher = _Searcher(distributed, length)
        searcher.unit = core.Unit[unit.upper()]
        preempt = _Preempt(distributed)
        preempt.trial = self
        context = core.Context(
            checkpoint=_Checkpoints(self),
            distributed=distributed,
            preempt=preempt,
            train=_Train(self),
            searcher=searcher,
        )
        invalid: det.InvalidHP | None = None
        with context:
            try:
                trial_context = self.trial_class.trial_context_class(context, env)
                controller = load.get_trial_controller_class(self.trial_class).from_trial(
                    trial_inst=self.trial_class(trial_context), context=trial_context, env=env
                )
                controller.run()
                invalid = controller.breakdown
            except det.InvalidHP as error:  # the context would end this process
                invalid = error
        if invalid is not None:
            raise invalid
        return self

    def _environment(self, latest: Path | None, steps: int) -> det.EnvContext:
        config = copy.deepcopy(self.experiment.config)
        return det.EnvContext(
            master_url="",
            master_cert_file=None,
            master_cert_name=None,
            experiment_config=config,
            hparams=config["hyperparameters"],
            latest_checkpoint=None if latest is None else str(latest),
            steps_completed=steps,
            use_gpu=False,
            container_gpus=[],
            slot_ids=[],
            debug=False,
            det_trial_id="1" if steps or latest is None else "2",
            det_experiment_id="1",
            det_agent_id="local",
            det_cluster_id="local",
            trial_seed=config["reproducibility"]["experiment_seed"],
            trial_run_id=1,
            allocation_id="local",
            managed_training=True,
            test_mode=False,
            on_cluster=self.on_cluster,
        )
