"""The kinds of target that there are: settings of one, and the likelihood that they build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union, get_args

from pydantic import Field

from natdgp.lazy import lazy
from natdgp.likelihoods import bernoulli, gaussian, student_t
from natdgp.likelihoods.base import Likelihood, gpflow_float
from natdgp.likelihoods.gpflow_likelihood import GPflowLikelihood

if TYPE_CHECKING:
    import gpflow
else:
    gpflow = lazy("gpflow")

LikelihoodSettings = Annotated[
    Union[  # noqa: UP007
        gaussian.GaussianSettings,
        student_t.StudentTSettings,
        bernoulli.BernoulliSettings,
    ],
    Field(discriminator="name"),
]


def build_likelihood(settings: LikelihoodSettings, dtype: Any = "float64") -> Likelihood:
    """Build a likelihood with its initial parameters.

    :param dtype: of the parameters; GPflow's global float type stays as it is.
    """
    with gpflow_float(dtype):
        return settings.build()


def likelihood_of(likelihood: gpflow.likelihoods.Likelihood) -> Likelihood:
    """What natdgp knows of a GPflow likelihood that is in a model already.

    :returns: of the kind that it is; of any other, subclasses included, a
        :class:`~natdgp.likelihoods.gpflow_likelihood.GPflowLikelihood`.
    """
    union, _ = get_args(LikelihoodSettings)
    for settings in get_args(union):
        if settings.likelihood.wraps(likelihood):
            wrapped: Likelihood = settings.likelihood(likelihood)
            return wrapped
    return GPflowLikelihood(likelihood)
