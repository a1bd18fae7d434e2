from __future__ import annotations

import pytest

from natdgp.settings.configuration import Configuration, trial_of

LAUNCHER = "python3 -m determined.launch.horovod --autohorovod --trial trials.deep_gp:DeepGPTrial"


def test_defaults_are_the_masters() -> None:
    given = {
        "name": "a",
        "entrypoint": LAUNCHER,
        "searcher": {"name": "single", "metric": "val_nlpd", "max_length": {"batches": 3}},
        "data": {"source": "flights"},
        "hyperparameters": {"global_batch_size": 8},
    }
    assert Configuration.model_validate(given).defaulted() == {
        **given,
        "searcher": {
            "name": "single",
            "metric": "val_nlpd",
            "max_length": {"batches": 3},
            "smaller_is_better": True,
        },
        "environment": {},
        "resources": {"slots_per_trial": 1},
        "min_validation_period": {"batches": 0},
        "min_checkpoint_period": {"batches": 0},
        "perform_initial_validation": False,
        "checkpoint_policy": "best",
        "checkpoint_storage": {
            "save_trial_best": 1,
            "save_trial_latest": 1,
            "save_experiment_best": 0,
        },
        "scheduling_unit": 100,
        "max_restarts": 5,
        "reproducibility": {"experiment_seed": 0},
        "optimizations": {
            "aggregation_frequency": 1,
            "average_aggregated_gradients": True,
            "average_training_metrics": True,
            "gradient_compression": False,
            "mixed_precision": "O0",
        },
        "profiling": {"enabled": False},
        "debug": False,
    }


def test_the_top_level_fields_are_those_that_the_master_accepts() -> None:
    accepted = """
        name, description, labels, data, workspace, project, entrypoint, hyperparameters, searcher,
        resources, environment, bind_mounts, checkpoint_storage, tensorboard_storage,
        checkpoint_policy, min_validation_period, min_checkpoint_period,
        perform_initial_validation, records_per_epoch, scheduling_unit, max_restarts, log_policies,
        retention_policy, optimizations, profiling, reproducibility, preemption_timeout,
        integrations, security, slurm, pbs, debug
    """
    assert set(Configuration.model_fields) == set(accepted.replace(",", " ").split())


@pytest.mark.parametrize("entrypoint", [LAUNCHER, LAUNCHER.split()])
def test_a_trial_is_found_in_a_launcher_line_or_list(entrypoint: str | list[str]) -> None:
    assert trial_of(entrypoint) == "trials.deep_gp:DeepGPTrial"
