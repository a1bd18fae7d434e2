"""What a model can be set to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from natdgp.fields import Frozen, PositiveFloat, PositiveInt, Refused
from natdgp.likelihoods.gaussian import GaussianSettings
from natdgp.likelihoods.registry import LikelihoodSettings


class KernelSettings(Frozen):
    """The kernel of every layer; each layer has parameters of its own."""

    name: Literal["squared_exponential", "matern32", "matern52"] = "squared_exponential"
    ard: bool = True
    """One lengthscale per input dimension instead of one for all."""
    variance: PositiveFloat = 1.0
    """Initial variance."""
    lengthscale: PositiveFloat | None = None
    """Initial lengthscale; by default the square root of the layer's input dimension."""


class ModelSettings(Frozen):
    """A deep Gaussian process (Salimbeni & Deisenroth 2017)."""

    layers: Annotated[PositiveInt, Field(le=100)] = 2
    """Number of GP layers; 1 is a sparse variational GP (SVGP)."""
    inducing_points: PositiveInt | tuple[PositiveInt, ...] = 100
    """M, the inducing points of each layer: one number for all, or a list with one per layer."""
    hidden_width: PositiveInt | None = None
    """Output dimension of inner layers; by default min(D, 30) for D features."""
    kernel: KernelSettings = KernelSettings()
    likelihood: LikelihoodSettings = GaussianSettings()
    inner_q_sqrt_scale: PositiveFloat = 1e-5
    """Inner layers' q_sqrt starts at this times the identity (Salimbeni & Deisenroth 2017)."""
    train_inducing_points: bool = True
    """Whether the inducing inputs move during training."""
    num_samples: PositiveInt = 1
    """S, Monte-Carlo samples through the inner layers per training row."""
    dtype: Literal["float64", "float32"] = "float64"

    @model_validator(mode="after")
    def _one_number_per_layer(self) -> ModelSettings:
        given = self.inducing_points
        if isinstance(given, tuple) and len(given) != self.layers:
            raise Refused(
                "not-one-per-layer",
                f"inducing_points lists {len(given)} numbers for {self.layers} layers",
                "give one per layer, or a single number",
            )
        return self

    @property
    def inducing_points_per_layer(self) -> tuple[int, ...]:
        """M of every layer, first to last."""
        given = self.inducing_points
        return given if isinstance(given, tuple) else (given,) * self.layers
