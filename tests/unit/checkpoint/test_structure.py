"""Models with the same variables that are other functions are told apart."""

from __future__ import annotations

import json
from collections.abc import Callable

import gpflow
import numpy as np
import pytest
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent

from natdgp.checkpoint.structure import differences, structure_of
from natdgp.likelihoods.registry import likelihood_of
from natdgp.models.deep_gp import DeepGP
from natdgp.models.layers.gp import GPLayer


def _model(
    kernel: Callable[[], gpflow.kernels.Kernel] = gpflow.kernels.SquaredExponential,
    mean_function: gpflow.functions.MeanFunction | None = None,
    likelihood: gpflow.likelihoods.Likelihood | None = None,
    **others: bool,
) -> DeepGP:
    layer = GPLayer(
        SharedIndependent(kernel(), output_dim=2),
        SharedIndependentInducingVariables(InducingPoints(np.zeros((4, 2)))),
        num_data=10,
        mean_function=mean_function or gpflow.mean_functions.Identity(2),
        num_latent_gps=2,
        verbose=False,
        **others,  # type: ignore[arg-type]
    )
    likelihood = likelihood_of(likelihood or gpflow.likelihoods.StudentT(1.0, df=3.0))
    return DeepGP([layer], likelihood, num_data=10, seed=0)


def _shapes(deep_gp: DeepGP) -> list[list[int]]:
    return [variable.shape.as_list() for variable in deep_gp.trainable_variables]


@pytest.mark.parametrize(
    ("other", "place", "ours", "theirs"),
    [
        (
            {"kernel": gpflow.kernels.Matern52},
            "layers[0].kernel.kernel.class",
            "Matern52",
            "SquaredExponential",
        ),
        ({"likelihood": gpflow.likelihoods.StudentT(1.0, df=4.0)}, "likelihood.df", "4.0", "3.0"),
        (
            {"mean_function": gpflow.mean_functions.Zero(2)},
            "layers[0].mean_function.class",
            "Zero",
            "Identity",
        ),
        ({"whiten": False}, "layers[0].whiten", "False", "True"),
        (
            {"kernel": lambda: gpflow.kernels.SquaredExponential(active_dims=[0])},
            "layers[0].kernel.kernel.active_dims[0]",
            "0",
            "not there",
        ),
    ],
    ids=["kernel", "df", "mean function", "whiten", "active_dims"],
)
def test_another_function_of_the_same_variables_is_told(
    other: dict[str, object], place: str, ours: str, theirs: str
) -> None:
    one, another = _model(), _model(**other)  # type: ignore[arg-type]
    assert _shapes(one) == _shapes(another)
    saved = json.loads(json.dumps(structure_of(one)))  # as a checkpoint has it
    assert differences(saved, structure_of(one)) == []
    told = differences(saved, structure_of(another))
    assert f"{place} is {ours}, but {theirs} in the checkpoint" in told


def test_parameters_and_names_are_no_part_of_a_structure() -> None:
    one, another = _model(), _model(lambda: gpflow.kernels.SquaredExponential(variance=2.0))
    another.f_layers[0].q_mu.assign(np.ones((4, 2)))
    assert structure_of(one) == structure_of(another)
