from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from natdgp.settings import Problem, SettingsError, read_experiment, read_search

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


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        read_experiment(path, overrides)
    return caught.value.problems


def test_a_file_is_read_with_its_constants_and_the_masters_defaults(tmp_path: Path) -> None:
    text = VALID.replace("layers: 2", "layers: {type: const, val: 3}")
    text += "    hidden_width: null\nmax_restarts: null\nlabels: null\n"
    experiment = read_experiment(write(tmp_path, text))
    assert experiment.settings.global_batch_size == 64
    assert experiment.settings.model.layers == 3
    assert experiment.config["hyperparameters"]["model"]["layers"] == 3
    assert (experiment.config["scheduling_unit"], experiment.config["max_restarts"]) == (100, 5)
    assert "labels" not in experiment.config
    assert experiment.trial == "trials.deep_gp:DeepGPTrial"


def test_an_experiment_is_overridden_in_order_and_takes_other_slots(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    overrides = ["reproducibility.experiment_seed=6", "name=b", "reproducibility.experiment_seed=7"]
    experiment, search = read_experiment(path, overrides), read_search(path)
    assert (experiment.config["name"], experiment.seed, search.seed) == ("b", 7, 0)
    assert (experiment.slots, experiment.with_slots(2).slots, search.slots) == (1, 2, 1)
    assert experiment.with_slots(2).settings == experiment.settings
    assert search.with_slots(4).config["resources"] == {"slots_per_trial": 4}


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


def test_what_is_searched_over_is_a_problem_of_training_and_hides_no_other(tmp_path: Path) -> None:
    natural_gradient = (
        "  natural_gradient:\n"
        "    ramp_steps: 100\n"
        "    gamma_initial: {type: log, base: 10, minval: -4, maxval: -2}\n"
        "  adam: {learning_rate: 0}\n"
    )
    found = problems_of(write(tmp_path, VALID + natural_gradient))
    assert [(problem.path, problem.code) for problem in found] == [
        ("hyperparameters.natural_gradient.gamma_initial", "not-constant"),
        ("hyperparameters.adam.learning_rate", "out-of-range"),
    ]


def test_what_only_a_cluster_has_is_refused_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    overrides = ["searcher.source_trial_id=3", "searcher.source_checkpoint_uuid=abc"]
    assert read_search(path, overrides, local=False)
    with pytest.raises(SettingsError) as caught:
        read_search(path, overrides)
    found = {problem.path: problem.code for problem in caught.value.problems}
    assert found == dict.fromkeys(
        ["searcher.source_trial_id", "searcher.source_checkpoint_uuid"], "only-on-a-cluster"
    )


def test_a_date_is_no_text(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, VALID), "name=2024-01-01")
    assert (problem.path, problem.code) == ("name", "wrong-type")


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


def test_reading_an_experiment_needs_none_of_the_stack(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from natdgp.settings import read_experiment; "
        "import natdgp.data, natdgp.models, natdgp.natgrad, natdgp.training; "
        "read_experiment(Path(sys.argv[1])); "
        "print({'tensorflow', 'gpflow', 'scipy', 'determined', 'horovod'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(write(tmp_path, VALID))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
