"""The experiment configuration around the settings: what Determined's master reads.

Defaults are the master's own, so that a local run starts from what a cluster would. It has more
fields than these have defaults for; those are passed on as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from natdgp.fields import NonNegativeInt, PositiveFloat, PositiveInt
from natdgp.settings.searchers import Searcher
from natdgp.settings.section import Section
from natdgp.settings.spans import Period

LAUNCHER = "python3 -m determined.launch.horovod --autohorovod --trial"
IMAGE = "determinedai/tensorflow-ngc:0.38.1"

_LONGEST_NAME = 200
"""Bytes; file systems take 255, and a number or a word may be added."""

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


class ImageMap(Section):
    """An image for each kind of slot."""

    cuda: str | None = None
    cpu: str | None = None
    rocm: str | None = None


class VariablesMap(Section):
    """Variables for each kind of slot."""

    cuda: list[str] | None = None
    cpu: list[str] | None = None
    rocm: list[str] | None = None


class Environment(Section):
    """The container of a trial."""

    image: str | ImageMap | None = None
    environment_variables: list[str] | VariablesMap | None = None
    force_pull_image: bool | None = None
    registry_auth: Group | None = None
    pod_spec: Group | None = None
    add_capabilities: list[str] | None = None
    drop_capabilities: list[str] | None = None
    proxy_ports: list[Group] | None = None
    ports: dict[str, PositiveInt] | None = None


class CheckpointStorage(Section):
    """Where checkpoints go, which is the master's affair, and how many are kept."""

    model_config = ConfigDict(extra="allow")

    type: Literal["shared_fs", "directory", "s3", "gcs", "azure"] | None = None
    save_trial_best: NonNegativeInt = 1
    save_trial_latest: NonNegativeInt = 1
    save_experiment_best: NonNegativeInt = 0


class Optimizations(Section):
    """How gradients travel."""

    aggregation_frequency: PositiveInt = 1
    average_aggregated_gradients: bool = True
    average_training_metrics: bool = True
    gradient_compression: bool = False
    mixed_precision: Literal["O0", "O1", "O2", "O3"] = "O0"
    tensor_fusion_threshold: NonNegativeInt | None = None
    tensor_fusion_cycle_time: NonNegativeInt | None = None
    auto_tune_tensor_fusion: bool | None = None

    @field_validator("gradient_compression", "mixed_precision")
    @classmethod
    def _not_supported(cls, value: Any, info: Any) -> Any:
        default = cls.model_fields[info.field_name].default
        if value != default:
            raise ValueError(
                f"{info.field_name} is not supported; only its default, {default}, is; remove it"
            )
        return value


class Profiling(Section):
    """System metrics of a trial."""

    model_config = ConfigDict(extra="allow")

    enabled: bool = False


class Reproducibility(Section):
    """Where all randomness starts."""

    experiment_seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0


class Configuration(Section):
    """An experiment file."""

    name: str = Field(min_length=1)
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
    profiling: Profiling = Profiling()
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
        if not name.strip(".") or any(c in "/\\" or not c.isprintable() for c in name):
            raise ValueError(
                "must be fit for a folder's name, as a run's folder is called so: no slashes, no "
                "line breaks, not only dots; choose another"
            )
        if len(name.encode()) > _LONGEST_NAME:
            raise ValueError(
                f"must be of at most {_LONGEST_NAME} bytes in UTF-8, as a run's folder is called "
                "so; shorten it"
            )
        return name

    @field_validator("entrypoint")
    @classmethod
    def _launches_horovod(cls, entrypoint: str | list[str]) -> str | list[str]:
        if trial_of(entrypoint) is None:
            raise ValueError(
                "must be a launcher line that ends in --trial module:Class or --trial "
                "package.module:Class; a bare module:Class would start torch.distributed"
                f"; write {LAUNCHER} trials.deep_gp:DeepGPTrial"
            )
        return entrypoint


def trial_of(entrypoint: str | list[str]) -> str | None:
    """The `module:Class` of the trial that an entrypoint launches with Horovod, if it does."""
    words = entrypoint.split() if isinstance(entrypoint, str) else entrypoint
    if "determined.launch.horovod" not in words or "--trial" not in words[:-1]:
        return None
    trial = words[words.index("--trial") + 1]
    module, _, name = trial.partition(":")
    return trial if all(map(str.isidentifier, [*module.split("."), name])) else None


def defaulted(configuration: BaseModel) -> dict[str, Any]:
    """A valid configuration as plain values, without what is absent."""
    return configuration.model_dump(exclude_none=True)
