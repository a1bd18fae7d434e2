from __future__ import annotations

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from natdgp.likelihoods.bernoulli import BernoulliLikelihood
from natdgp.likelihoods.gaussian import GaussianLikelihood
from natdgp.likelihoods.gpflow_likelihood import GPflowLikelihood
from natdgp.likelihoods.registry import LikelihoodSettings, build_likelihood, likelihood_of
from natdgp.likelihoods.student_t import StudentTLikelihood

KINDS = {
    "gaussian": GaussianLikelihood,
    "student_t": StudentTLikelihood,
    "bernoulli": BernoulliLikelihood,
}
SETTINGS: TypeAdapter[LikelihoodSettings] = TypeAdapter(LikelihoodSettings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KINDS)
def test_a_name_builds_its_kind_in_its_float_type(name: str, dtype: str) -> None:
    likelihood = build_likelihood(SETTINGS.validate_python({"name": name}), dtype)
    assert type(likelihood) is KINDS[name]
    assert {v.dtype for v in likelihood.gpflow.trainable_variables} <= {tf.as_dtype(dtype)}
    assert gpflow.config.default_float() == np.float64
    assert type(likelihood_of(likelihood.gpflow)) is KINDS[name]
    assert likelihood_of(likelihood.gpflow).gpflow is likelihood.gpflow


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="'gaussian', 'student_t', 'bernoulli'"):
        SETTINGS.validate_python({"name": "cauchy"})


class _Subclass(gpflow.likelihoods.Gaussian):
    """What it computes is its author's affair."""


@pytest.mark.parametrize(
    "likelihood",
    [
        _Subclass(),
        gpflow.likelihoods.Gaussian(variance=gpflow.functions.Constant(1.0)),
        gpflow.likelihoods.StudentT(df=2.0),  # of infinite variance
        gpflow.likelihoods.Bernoulli(invlink=tf.sigmoid),
        gpflow.likelihoods.Poisson(),
    ],
)
def test_other_likelihoods_are_left_to_gpflow(
    likelihood: gpflow.likelihoods.Likelihood,
) -> None:
    assert type(likelihood_of(likelihood)) is GPflowLikelihood
