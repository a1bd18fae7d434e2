from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from natdgp.settings import Problem, SettingsError, read_experiment, validate

VALID = """\
name: small
entrypoint: python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial
environment:
  image: determinedai/tensorflow-ngc:0.38.1
resources:
  slots_per_trial: 1
searcher:
  name: single
  metric: val_nlpd
  max_length: {batches: 30}
data:
  source: flights
  split: {validation: 0.1}
hyperparameters:
  global_batch_size: 64
  model:
    layers: 2
"""

# Edits of the file above, written as differences: `-` lines give way to `+` lines, or `+` lines
# alone are added at its end. Each makes one problem, at the line marked HERE, if one is marked,
# with the path and the words that follow `=`.
BROKEN = """
+ max_restart: 2  # HERE
= max_restart: did you mean max_restarts?

+ zebra: 2  # HERE
= zebra: there is no field zebra; allowed here: name, description, labels

- name: small
= name: required; must be text

- name: small
+ name: ''  # HERE
= name: must be text of at least 1

- name: small
+ name: 3  # HERE
= name: received 3; must be text

- entrypoint: python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial
= entrypoint: required

- entrypoint: python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial
+ entrypoint: trials.deep_gp:DeepGPTrial  # HERE
= entrypoint: a bare module:Class would start torch.distributed

- entrypoint: python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial
+ entrypoint: [python3, train.py]  # HERE
= entrypoint: write python3 -m determined.launch.horovod --autohorovod --trial trials

- entrypoint: python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial
+ entrypoint: 3  # HERE
= entrypoint: must be text, or a list with each item text

+ scheduling_unit: 0  # HERE
= scheduling_unit: must be a whole number above 0

+ max_restarts: -1  # HERE
= max_restarts: must be a whole number of at least 0

+ checkpoint_policy: bset  # HERE
= checkpoint_policy: did you mean best?

+ perform_initial_validation: 7  # HERE
= perform_initial_validation: must be true or false

+ debug: maybe  # HERE
= debug: must be true or false

+ checkpoint_storage:
+   save_trial_best: few  # HERE
= checkpoint_storage.save_trial_best: whole number of at least 0

+ reproducibility:
+   experiment_seed: 2147483648  # HERE
= reproducibility.experiment_seed: of at least 0 and below 2147483648

+ reproducibility:
+   experiment_seed: -1  # HERE
= reproducibility.experiment_seed: of at least 0 and below 2147483648

+ reproducibility:
+   seed: 1  # HERE
= reproducibility.seed: there is no field seed; allowed here: experiment_seed

-   name: single
+   name: singel  # HERE
= searcher.name: did you mean single?

- searcher:
-   name: single
+ searcher:  # HERE
= searcher.name: required; must be one of single, random, grid

- searcher:
-   name: single
-   metric: val_nlpd
-   max_length: {batches: 30}
+ searcher:  # HERE
= searcher: required; must be a group of fields

- searcher:
-   name: single
-   metric: val_nlpd
-   max_length: {batches: 30}
= searcher: required

-   metric: val_nlpd
+   metric: val_nlp  # HERE
= searcher.metric: did you mean val_nlpd?

-   metric: val_nlpd
+   metric: accuracy  # HERE
= searcher.metric: must be one of val_loss, val_rmse, val_nlpd, val_crps

- searcher:
-   name: single
-   metric: val_nlpd
+ searcher:
+   name: single
+   metric: val_elbo_per_datum
+   smaller_is_better: true  # HERE
= searcher.smaller_is_better: set smaller_is_better: false

- searcher:
+ searcher:
+   smaller_is_better: false  # HERE
= searcher.smaller_is_better: set smaller_is_better: true

-   max_length: {batches: 30}
+   max_length: 30  # HERE
= searcher.max_length: a group of fields (batches, records, epochs)

-   max_length: {batches: 30}
+   max_length:
+     batches: 0  # HERE
= searcher.max_length.batches: must be a whole number above 0

-   max_length: {batches: 30}
+   max_length: {batchs: 30}  # HERE
= searcher.max_length.batchs: did you mean batches?

-   max_length: {batches: 30}
+   max_length: {}  # HERE
= searcher.max_length: must have one unit of batches, records or epochs, got none

-   max_length: {batches: 30}
+   max_length: {batches: 30, records: 1}  # HERE
= searcher.max_length: got batches and records

-   max_length: {batches: 30}
+   max_length: {epochs: 1}
= records_per_epoch: required by searcher.max_length (epochs)

+ min_validation_period: {epochs: 1}
= records_per_epoch: required by min_validation_period (epochs)

+ min_checkpoint_period: {epochs: 1}
= records_per_epoch: set it to the number of training rows, or count in batches

+   adam: {schedule: {name: per_epoch, factor: 0.9}}
= records_per_epoch: required by hyperparameters.adam.schedule (per_epoch)

+ records_per_epoch: 0  # HERE
= records_per_epoch: must be a whole number above 0

+ min_validation_period: {batches: -1}  # HERE
= min_validation_period.batches: must be a whole number of at least 0

+ min_checkpoint_period: {batches: 1, records: 9}  # HERE
= min_checkpoint_period: got batches and records

-   slots_per_trial: 1
+   slots_per_trial: 0  # HERE
= resources.slots_per_trial: must be a whole number above 0

-   slots_per_trial: 1
+   slot_per_trial: 2  # HERE
= resources.slot_per_trial: did you mean slots_per_trial?

- environment:
-   image: determinedai/tensorflow-ngc:0.38.1
= environment.image: determinedai/pytorch-ngc:0.38.1, has no TensorFlow

- environment:
-   image: determinedai/tensorflow-ngc:0.38.1
+ environment:  # HERE
+   force_pull_image: true
= environment.image: set environment: {image: determinedai/tensorflow-ngc:0.38.1}

-   image: determinedai/tensorflow-ngc:0.38.1
+   image: determinedai/pytorch-ngc-dev:1  # HERE
= environment.image: must be an image with TensorFlow

-   image: determinedai/tensorflow-ngc:0.38.1
+   image:
+     cpu: mine:1
+     cuda: determinedai/pytorch-ngc:0.38.1  # HERE
= environment.image.cuda: must be an image with TensorFlow

-   image: determinedai/tensorflow-ngc:0.38.1
+   image: {cpus: mine:1}  # HERE
= environment.image.cpus: did you mean cpu?

-   image: determinedai/tensorflow-ngc:0.38.1
+   image: 3  # HERE
= environment.image: must be text, or a group of fields (cuda, cpu, rocm)

+ optimizations:
+   gradient_compression: true  # HERE
= optimizations.gradient_compression: gradient_compression is not supported

+ optimizations:
+   mixed_precision: O1  # HERE
= optimizations.mixed_precision: mixed_precision is not supported; only its default, O0

+ optimizations:
+   aggregation_frequency: 0  # HERE
= optimizations.aggregation_frequency: must be a whole number above 0

+ optimizations:
+   average_aggregated_gradients: maybe  # HERE
= optimizations.average_aggregated_gradients: must be true or false

+ optimizations:
+   aggregation_frequencies: 4  # HERE
= optimizations.aggregation_frequencies: did you mean aggregation_frequency?

- data:
-   source: flights
-   split: {validation: 0.1}
= data: required

-   source: flights
+   source: fligths  # HERE
= data.source: did you mean flights?

-   source: flights
+   source: flights
+   rows: 1.5  # HERE
= data.rows: must be a whole number above 0

-   split: {validation: 0.1}
+   split: {validation: 0.9, test: 0.2}  # HERE
= data.split: leaves no training rows

-   split: {validation: 0.1}
+   split: {validation: 10%}  # HERE
= data.split.validation: must be a number of at least 0 and below 1

- hyperparameters:
-   global_batch_size: 64
+ hyperparameters:  # HERE
= hyperparameters.global_batch_size: required

-     layers: 2
+     layrs: 2  # HERE
= hyperparameters.model.layrs: did you mean layers?

-     layers: 2
+     layers: {type: const, val: 0}  # HERE
= hyperparameters.model.layers: must be a whole number above 0

-     layers: 2
+     layers: {type: int, minval: 1, maxval: 4}  # HERE
= hyperparameters.model.layers: give it a value: --set hyperparameters.model.layers=VALUE

-   global_batch_size: 64
+   global_batch_size: {type: categorical, vals: [64, 128]}  # HERE
= hyperparameters.global_batch_size: this file searches over hyperparameters.global_batch_size

-   model:
+   model:  # HERE
+     inducing_points: [100, 50, 25]
= hyperparameters.model: lists 3 numbers for 2 layers

+     inducing_points:
+     - 100
+     - 0  # HERE
= hyperparameters.model.inducing_points.1: must be a whole number above 0

+   natural_gradient:
+     layers: lst  # HERE
= hyperparameters.natural_gradient.layers: did you mean last?

+   natural_gradient: {ramp_steps: 3}  # HERE
= hyperparameters.natural_gradient: give both or neither

+   adam:
+     schedule:
+       name: cosin  # HERE
= hyperparameters.adam.schedule.name: did you mean cosine?

+   early_stopping: {monitor: val_los}  # HERE
= hyperparameters.early_stopping.monitor: did you mean val_loss?

+   reduce_lr_on_plateau: {monitor: lr}  # HERE
= hyperparameters.reduce_lr_on_plateau.monitor: must be one of val_loss

- hyperparameters:
+ hyperparameters:  # HERE
+   reduce_lr_on_plateau: {}
+   adam: {schedule: {name: cosine, decay_steps: 9}}
= hyperparameters: drop one of them

+ name: again  # HERE
= : not valid YAML: found duplicate key "name"

+ max_restarts: !!python/name:os.system  # HERE
= max_restarts: a value of kind python/name:os.system is not allowed
"""


@dataclass(frozen=True)
class Edit:
    """One of the edits above."""

    text: str
    line: int | None
    path: str
    says: str

    @classmethod
    def read(cls, difference: str) -> Edit:
        marked: dict[str, list[str]] = {"-": [], "+": [], "=": []}
        for line in difference.splitlines():
            marked[line[0]].append(line[2:])
        old, new = ("".join(f"{line}\n" for line in marked[mark]) for mark in "-+")
        assert VALID.count(f"\n{old}" if old else VALID) == 1 or VALID.startswith(old)
        text = VALID.replace(old, new) if old else VALID + new
        here = [number for number, line in enumerate(text.splitlines(), 1) if "HERE" in line]
        path, _, says = marked["="][0].partition(": ")
        return cls(text, here[0] if here else None, path.strip(" :"), says)


EDITS = [Edit.read(difference) for difference in BROKEN.strip().split("\n\n")]


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        read_experiment(path, overrides)
    return caught.value.problems


def test_the_file_that_is_broken_below_is_valid_before(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, VALID))
    assert experiment.settings.global_batch_size == 64
    assert experiment.config["resources"] == {"slots_per_trial": 1}
    assert experiment.config["scheduling_unit"] == 100
    assert experiment.trial == "trials.deep_gp:DeepGPTrial"
    assert experiment.path == str(tmp_path / "experiment.yaml")


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.path}: {edit.says}")
def test_a_broken_file_is_told_its_path_line_and_remedy(tmp_path: Path, edit: Edit) -> None:
    path = write(tmp_path, edit.text)
    (problem,) = problems_of(path)
    assert (problem.path, problem.file, problem.line) == (edit.path, str(path), edit.line)
    assert edit.says in f"{problem} {problem.remedy}"
    assert problem.remedy


def test_all_problems_of_a_file_come_together_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = VALID.replace("name: small\n", "")
    for right, wrong in (
        ("tensorflow-ngc", "pytorch-ngc"),
        ("slots_per_trial: 1", "slots_per_trial: 128"),
        ("val_nlpd", "val_nlp"),
        ("source: flights", "source: fligths"),
        ("layers: 2", "layrs: 2"),
    ):
        text = text.replace(right, wrong)
    found = problems_of(write(tmp_path, text))
    assert [(problem.path, problem.line) for problem in found] == [
        ("name", None),
        ("environment.image", 3),
        ("searcher.metric", 8),
        ("data.source", 11),
        ("hyperparameters.global_batch_size", 14),
        ("hyperparameters.model.layrs", 16),
    ]


def test_several_slots_share_a_batch_that_is_their_multiple(tmp_path: Path) -> None:
    text = VALID.replace("slots_per_trial: 1", "slots_per_trial: 4")
    assert read_experiment(write(tmp_path, text)).config["resources"] == {"slots_per_trial": 4}
    text = VALID.replace("slots_per_trial: 1", "slots_per_trial: 3")
    (problem,) = problems_of(write(tmp_path, text))
    assert (problem.path, problem.line) == ("hyperparameters.global_batch_size", 15)
    assert problem.remedy == "use 63 or 66"


def test_gradients_may_be_aggregated_over_batches(tmp_path: Path) -> None:
    text = (
        VALID + "optimizations: {aggregation_frequency: 4, average_aggregated_gradients: false}\n"
    )
    optimizations = read_experiment(write(tmp_path, text)).config["optimizations"]
    assert optimizations["aggregation_frequency"] == 4
    assert optimizations["average_aggregated_gradients"] is False


def test_a_search_hides_no_other_problem_and_makes_none(tmp_path: Path) -> None:
    natural_gradient = (
        "  natural_gradient:\n"
        "    ramp_steps: 100\n"
        "    gamma_initial: {type: log, base: 10, minval: -4, maxval: -2}\n"
        "  adam: {learning_rate: 0}\n"
    )
    found = problems_of(write(tmp_path, VALID + natural_gradient))
    assert [problem.path for problem in found] == [
        "hyperparameters.natural_gradient.gamma_initial",
        "hyperparameters.adam.learning_rate",
    ]


def test_constants_in_determineds_long_form_are_read_as_their_values(tmp_path: Path) -> None:
    text = VALID.replace("layers: 2", "layers: {type: const, val: 3}")
    experiment = read_experiment(write(tmp_path, text))
    assert experiment.settings.model.layers == 3
    assert experiment.config["hyperparameters"]["model"]["layers"] == 3


def test_overrides_change_the_file_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    overrides = ["hyperparameters.model.layers=3", "name=other", "hyperparameters.model.layers=4"]
    experiment = read_experiment(path, overrides)
    assert experiment.settings.model.layers == 4
    assert experiment.config["name"] == "other"


def test_a_search_becomes_a_run_by_an_override(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("layers: 2", "layers: {type: int, minval: 1, maxval: 4}"))
    override = problems_of(path)[0].remedy.rpartition("--set ")[2].replace("VALUE", "3")
    assert read_experiment(path, [override]).settings.model.layers == 3


def test_problems_of_overrides_and_file_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("val_nlpd", "val_nlp"))
    found = problems_of(path, "layers", "hyperparameters.model.layrs=3")
    assert [(problem.path, problem.file, problem.line) for problem in found] == [
        ("", "--set layers", None),
        ("hyperparameters.model.layrs", "--set hyperparameters.model.layrs=3", None),
        ("searcher.metric", str(path), 9),
    ]
    assert found[1].remedy == "did you mean layers?"


def test_an_experiments_configuration_written_out_reads_as_the_same_experiment(
    tmp_path: Path,
) -> None:
    first = read_experiment(write(tmp_path, VALID + "    inducing_points: [100, 50]\n"))
    with (tmp_path / "again.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(first.config, file)
    second = read_experiment(tmp_path / "again.yaml")
    assert second.config == first.config
    assert second.settings == first.settings


def test_null_means_the_default_as_it_does_to_the_master(tmp_path: Path) -> None:
    text = VALID + "    hidden_width: null\nmax_restarts: null\nlabels: null\n"
    config = read_experiment(write(tmp_path, text)).config
    assert config["max_restarts"] == 5
    assert "labels" not in config


def test_validate_takes_plain_values() -> None:
    config = YAML(typ="safe", pure=True).load(VALID)
    assert validate(config) == []
    config["searcher"]["metric"] = "accuracy"
    assert [problem.path for problem in validate(config)] == ["searcher.metric"]


def test_an_experiment_is_frozen(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, VALID))
    for field in fields(experiment):
        with pytest.raises(FrozenInstanceError):
            setattr(experiment, field.name, None)


def test_reading_an_experiment_needs_none_of_the_stack(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from natdgp.settings import read_experiment; "
        "import natdgp.data, natdgp.models, natdgp.natgrad, natdgp.training; "
        "read_experiment(Path(sys.argv[1])); "
        "print([m for m in ('tensorflow', 'determined', 'horovod', 'numpy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(write(tmp_path, VALID))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
