"""What natural gradients can be set to."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from natdgp.fields import Frozen, NonNegativeInt, PositiveFloat, Refused


class NaturalGradientSettings(Frozen):
    """Natural gradients for q(u) of the chosen layers (Salimbeni, Eleftheriadis & Hensman 2018)."""

    layers: Literal["all", "last", "none"] | tuple[NonNegativeInt, ...] = "last"
    """Which layers: `all`, `last`, `none`, or a list of indices from 0, first to last. Adam trains
    the others."""
    gamma: PositiveFloat | tuple[PositiveFloat, ...] = 0.1
    """Step length on the ELBO of all data, in (0, 1] as a rule; 1 jumps to the optimum of a
    one-layer model with Gaussian noise, given all data at once. One number for all of the layers,
    or a list with one for each, first to last."""
    gamma_initial: PositiveFloat | tuple[PositiveFloat, ...] | None = None
    """Step length at step 0, one number or a list; by default gamma itself, that is, no ramp."""
    ramp_steps: NonNegativeInt = 0
    """Steps over which gamma rises from gamma_initial, linearly in its logarithm."""
    positive_definite: Literal["exact", "guaranteed", "fallback"] | None = None
    """What to do about a step that is too long: `exact` ends the trial where it leads to no
    Gaussian; `fallback` shortens it there; `guaranteed` also where a variance would more than
    double. By default `fallback` for the last layer and `guaranteed` for inner ones, whose loss is
    not convex (docs/cold_start.md)."""
    max_kl: PositiveFloat | None = None
    """Trust region: a step whose KL(new q || old q) would be larger is shortened, for each latent
    GP; by default steps are not bounded."""
    placement: Literal["replicated", "sharded"] = "replicated"
    """On several slots, whether each takes every step (`replicated`), or the latent GPs are shared
    out among the slots (`sharded`). Batches that are aggregated are always stepped by all."""

    @model_validator(mode="after")
    def _ramp_is_whole(self) -> NaturalGradientSettings:
        if (self.gamma_initial is None) != (self.ramp_steps == 0):
            raise Refused(
                "half-a-ramp",
                f"a ramp needs both gamma_initial and ramp_steps above 0, got gamma_initial="
                f"{self.gamma_initial} and ramp_steps={self.ramp_steps}",
                "give both or neither",
            )
        return self

    def layers_of(self, count: int) -> tuple[int, ...]:
        """Indices of the layers whose q(u) natural gradients train, of so many, in order."""
        if isinstance(self.layers, tuple):
            return tuple(index for index in self.layers if index < count)
        everything = tuple(range(count))
        return {"all": everything, "last": everything[-1:], "none": ()}[self.layers]

    def gamma_of(self, position: int) -> float:
        """The step length of a layer after any ramp.

        :param position: which of the layers that natural gradients train, first to last, from 0.
        """
        return self.gamma[position] if isinstance(self.gamma, tuple) else self.gamma

    def gamma_initial_of(self, position: int) -> float:
        """The step length of a layer at step 0, its gamma where there is no ramp.

        :param position: which of the layers that natural gradients train, first to last, from 0.
        """
        initial = self.gamma_of(position) if self.gamma_initial is None else self.gamma_initial
        return initial[position] if isinstance(initial, tuple) else initial
