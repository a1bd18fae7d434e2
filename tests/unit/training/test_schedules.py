from __future__ import annotations

import pytest

from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.training.schedules import gamma_at, learning_rate_at
from natdgp.training.training_settings import (
    AdamSettings,
    CosineSchedule,
    ExponentialSchedule,
    PerEpochSchedule,
)


def _adam(schedule: ExponentialSchedule | CosineSchedule | PerEpochSchedule) -> AdamSettings:
    return AdamSettings(learning_rate=0.02, schedule=schedule)


def test_gamma_moves_linearly_in_its_logarithm_and_then_stays() -> None:
    ramp = NaturalGradientSettings(gamma=0.1, gamma_initial=1e-5, ramp_steps=100)
    found = [gamma_at(ramp, step) for step in (0, 25, 50, 75)]
    assert found == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2], rel=1e-12)
    assert [gamma_at(ramp, step) for step in (100, 101, 10**9)] == [0.1] * 3  # exactly
    falls = NaturalGradientSettings(gamma=1e-3, gamma_initial=1e-1, ramp_steps=2)
    found = [gamma_at(falls, step) for step in range(4)]
    assert found == pytest.approx([1e-1, 1e-2, 1e-3, 1e-3], rel=1e-12)


def test_without_a_schedule_lengths_and_rates_are_constant() -> None:
    gamma, adam = NaturalGradientSettings(gamma=0.3), AdamSettings(learning_rate=0.02)
    for step in (0, 1, 10**9):
        assert (gamma_at(gamma, step), learning_rate_at(adam, step)) == (0.3, 0.02)


def test_exponential_rate_decays_by_its_factor_every_decay_steps() -> None:
    settings = _adam(ExponentialSchedule(name="exponential", decay_rate=0.25, decay_steps=10))
    rates = [learning_rate_at(settings, step) for step in (0, 5, 10, 20)]
    assert rates == pytest.approx([0.02, 0.01, 0.005, 0.00125], rel=1e-12)


@pytest.mark.parametrize(
    ("alpha", "rates"),
    # Half a cosine: 1, (1 + sqrt(1/2)) / 2, 1/2, 0 of the way above alpha.
    [
        (0.0, [0.02, 0.02 * 0.8535533905932737, 0.01, 0.0, 0.0]),
        (0.1, [0.02, 0.02 * (0.9 * 0.8535533905932737 + 0.1), 0.011, 0.002, 0.002]),
        (1.0, [0.02] * 5),
    ],
)
def test_cosine_rate_falls_to_alpha_and_then_stays(alpha: float, rates: list[float]) -> None:
    settings = _adam(CosineSchedule(name="cosine", decay_steps=40, alpha=alpha))
    found = [learning_rate_at(settings, step) for step in (0, 10, 20, 40, 1000)]
    assert found == pytest.approx(rates, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(
    ("factor", "every", "rates"),
    [(0.5, 3, [0.02, 0.02, 0.02, 0.01, 0.01, 0.01, 0.005]), (0.1, 1, [0.02, 0.002, 0.0002])],
)
def test_per_epoch_rate_steps_down_every_so_many_epochs(
    factor: float, every: int, rates: list[float]
) -> None:
    settings = _adam(PerEpochSchedule(name="per_epoch", factor=factor, every=every))
    for step in (0, 9):  # of ten steps in each epoch
        found = [learning_rate_at(settings, 10 * epoch + step, 10) for epoch in range(len(rates))]
        assert found == pytest.approx(rates, rel=1e-12)


def test_an_epoch_without_a_length_is_told() -> None:
    settings = _adam(PerEpochSchedule(name="per_epoch", factor=0.5))
    with pytest.raises(ValueError, match="an epoch has no length; set records_per_epoch"):
        learning_rate_at(settings, 3)


def test_every_layer_has_a_ramp_of_its_own() -> None:
    settings = NaturalGradientSettings(gamma=(0.1, 1.0), gamma_initial=0.01, ramp_steps=2)
    assert [gamma_at(settings, 2, position) for position in range(2)] == [0.1, 1.0]
    assert gamma_at(settings, 1, 0) == pytest.approx(0.1**1.5, rel=1e-12)
    assert gamma_at(settings, 1, 1) == pytest.approx(0.1, rel=1e-12)
