"""What a model can be set to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from natdgp.fields import Frozen, PositiveFloat, PositiveInt, Refused, Section
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


class GPLayerSettings(Frozen):
    """A sparse GP; what is left out is the model's."""

    inducing_points: PositiveInt | None = None
    """M."""
    width: PositiveInt | None = None
    """Output dimension, unless it is the last layer; by default the model's `hidden_width`."""
    kernel: KernelSettings | None = None


class LatentLayerSettings(Frozen):
    """Latent variables of rows, joined to the inputs of the layers that follow."""

    dim: Annotated[PositiveInt, Field(le=100)] = 1
    """W, how many each row has."""
    prior: Literal["normal", "laplace", "logistic"] = "normal"
    """p(w), of location 0 and scale 1; q(w | x, y) is of the same family."""
    encoder: tuple[PositiveInt, ...] | Literal["rows"] = (64, 64)
    """What q(w | x, y) is made by: the widths of a neural network's hidden layers, or `rows`:
    parameters of each training row's own."""


def _from_word(given: Any) -> Any:
    return {given: {}} if isinstance(given, str) else given


class LayerSettings(Section):
    """One layer: `gp` or `latent`, or either with settings, as in `latent: {dim: 2}`."""

    gp: GPLayerSettings | None = None
    latent: LatentLayerSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> LayerSettings:
        if (self.gp is None) == (self.latent is None):
            raise Refused(
                "not-one-kind",
                "a layer must be one of gp and latent",
                "list every layer by itself, as in [latent, gp, gp]",
            )
        return self


Layers = tuple[Annotated[LayerSettings, BeforeValidator(_from_word)], ...]


class ModelSettings(Frozen):
    """A deep Gaussian process (Salimbeni & Deisenroth 2017)."""

    layers: Annotated[PositiveInt, Field(le=100)] | Layers = 2
    """Number of GP layers; 1 is a sparse variational GP (SVGP). Or a list of layers, first to last,
    as in `[latent, gp, gp]`, the last a `gp`."""
    inducing_points: PositiveInt | tuple[PositiveInt, ...] = 100
    """M, the inducing points of each GP layer: one number for all, or a list with one per layer."""
    hidden_width: PositiveInt | None = None
    """Output dimension of inner GP layers; by default that of their inputs, but at most 30."""
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
    def _the_last_layer_is_a_gp(self) -> ModelSettings:
        if not self.each_layer or self.each_layer[-1].gp is None:
            raise Refused(
                "no-gp-last",
                "layers must end with a gp, whose outputs are what the likelihood reads",
                "put a gp at the end of the list",
            )
        if self.each_layer[-1].gp.width is not None:
            raise Refused(
                "width-of-the-last",
                "the last layer is as wide as the likelihood needs",
                "leave its width out",
            )
        return self

    @model_validator(mode="after")
    def _one_number_per_layer(self) -> ModelSettings:
        given = self.inducing_points
        if isinstance(given, tuple) and len(given) != self.gp_layers:
            raise Refused(
                "not-one-per-layer",
                f"inducing_points lists {len(given)} numbers for {self.gp_layers} layers",
                "give one per layer, or a single number",
            )
        return self

    @property
    def each_layer(self) -> tuple[LayerSettings, ...]:
        """All layers, first to last."""
        if isinstance(self.layers, tuple):
            return self.layers
        return (LayerSettings(gp=GPLayerSettings()),) * self.layers

    @property
    def gp_layers(self) -> int:
        """How many GP layers there are."""
        return sum(layer.gp is not None for layer in self.each_layer)

    @property
    def inducing_points_per_layer(self) -> tuple[int, ...]:
        """M of every GP layer, first to last."""
        own = [layer.gp.inducing_points for layer in self.each_layer if layer.gp is not None]
        given = self.inducing_points
        common = given if isinstance(given, tuple) else (given,) * len(own)
        return tuple(M or others for M, others in zip(own, common, strict=True))
