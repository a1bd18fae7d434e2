"""The experiment configuration around the settings: what Determined's master reads.

Defaults are the master's own, so that a local run starts from what a cluster would. It has more
fields than these have defaults for; those are passed on as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from natdgp.fields import NonNegativeInt, PositiveFloat, PositiveInt, Refused, Section
from natdgp.settings.problems import note_valid
from natdgp.settings.searchers import Searcher
from natdgp.settings.spans import Period

LAUNCHER = "python3 -m determined.launch.horovod --autohorovod --trial"
IMAGE = "determinedai/tensorflow-ngc:0.38.1"

Group = dict[str, Any]
"""Fields that only the master reads."""


class Resources(Section):
    """What a trial runs on."""

    slots_per_trial: PositiveInt = 1
    max_slots: NonNegativeInt | None = None
    weight: PositiveFloat | None = None
    priority: Annotated[int, Field(ge=1, le=99, strict=True)] | None = None
    resource_pool: str | None = None
    shm_size: NonNegativeInt | str | None = None
    devices: list[Group] | None = None
    is_single_node: bool | None = None
    native_parallel: bool | None = None
    slots: PositiveInt | None = None


class Environment(Section):
    """The container of a trial, which is the master's affair, but for what is in its image."""

    model_config = ConfigDict(extra="allow")

    image: str | dict[str, str] | None = None


class CheckpointStorage(Section):
    """Where checkpoints go, which is the master's affair, and how many are kept."""

    model_config = ConfigDict(extra="allow")

    type: Literal["shared_fs", "directory", "s3", "gcs", "azure"] | None = None
    save_trial_best: NonNegativeInt = 1
    save_trial_latest: NonNegativeInt = 1
    save_experiment_best: NonNegativeInt = 0


class Optimizations(Section):
    """How gradients travel; compressed or in half precision they would be others."""

    aggregation_frequency: PositiveInt = 1
    average_aggregated_gradients: bool = True
    average_training_metrics: bool = True
    gradient_compression: Literal[False] = False
    mixed_precision: Literal["O0"] = "O0"
    tensor_fusion_threshold: NonNegativeInt | None = None
    tensor_fusion_cycle_time: NonNegativeInt | None = None
    auto_tune_tensor_fusion: bool | None = None


class Reproducibility(Section):
    """Where all randomness starts."""

    experiment_seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0


class Configuration(Section):
    """An experiment file."""

    model_config = ConfigDict(validate_default=True)  # so that defaults are noted, too
    _note = field_validator("*", mode="wrap")(note_valid)

    name: str = Field(min_length=1, max_length=200)
    description: str | None = None
    labels: list[str] | None = None
    workspace: str | None = None
    project: str | None = None
    entrypoint: str | list[str]
    environment: Environment = Environment()
    resources: Resources = Resources()
    searcher: Searcher
    records_per_epoch: PositiveInt | None = None
    """The master's default, 0, ends an epoch after every batch, so absent stays absent here."""
    min_validation_period: Period = Period(batches=0)
    min_checkpoint_period: Period = Period(batches=0)
    perform_initial_validation: bool = False
    checkpoint_policy: Literal["best", "all", "none"] = "best"
    checkpoint_storage: CheckpointStorage = CheckpointStorage()
    scheduling_unit: PositiveInt = 100
    max_restarts: NonNegativeInt = 5
    reproducibility: Reproducibility = Reproducibility()
    optimizations: Optimizations = Optimizations()
    profiling: Group = Field(default={"enabled": False})
    debug: bool = False
    data: dict[str, Any]
    hyperparameters: dict[str, Any]
    bind_mounts: list[Group] | None = None
    tensorboard_storage: Group | None = None
    log_policies: list[Group] | None = None
    retention_policy: Group | None = None
    preemption_timeout: PositiveInt | None = None
    integrations: Group | None = None
    security: Group | None = None
    slurm: Group | None = None
    pbs: Group | None = None

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if "/" in name or "\\" in name or not name.strip("."):
            message = "must be fit for a folder's name, as a run's folder is called so: no slashes"
            raise Refused("not-a-folder-name", message, "choose another")
        return name

    @field_validator("entrypoint")
    @classmethod
    def _launches_horovod(cls, entrypoint: str | list[str]) -> str | list[str]:
        if trial_of(entrypoint) is None:
            raise Refused(
                "not-horovod",
                "must be a launcher line that ends in --trial module:Class; a bare module:Class "
                "would start torch.distributed",
                f"write {LAUNCHER} trials.deep_gp:DeepGPTrial",
            )
        return entrypoint

    def defaulted(self) -> dict[str, Any]:
        """The configuration in plain values, with defaults and without what is absent."""
        return self.model_dump(exclude_none=True)


def trial_of(entrypoint: str | list[str]) -> str | None:
    """The `module:Class` of the trial that an entrypoint launches with Horovod, if it does."""
    words = entrypoint.split() if isinstance(entrypoint, str) else entrypoint
    if "determined.launch.horovod" not in words or "--trial" not in words[:-1]:
        return None
    trial = words[words.index("--trial") + 1]
    module, _, name = trial.partition(":")
    return trial if all(map(str.isidentifier, [*module.split("."), name])) else None
