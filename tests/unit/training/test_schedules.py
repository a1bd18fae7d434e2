from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natdgp.natgrad.natgrad_settings import NaturalGradientSettings
from natdgp.training.schedules import gamma_at, learning_rate_at
from natdgp.training.training_settings import (
    AdamSettings,
    CosineSchedule,
    ExponentialSchedule,
    PerEpochSchedule,
)

RAMP = NaturalGradientSettings(gamma=0.1, gamma_initial=1e-5, ramp_steps=100)

lengths = st.floats(1e-8, 1.0)
steps = st.integers(0, 10_000)


def _adam(schedule: ExponentialSchedule | CosineSchedule | PerEpochSchedule) -> AdamSettings:
    return AdamSettings(learning_rate=0.02, schedule=schedule)


@pytest.mark.parametrize(
    ("step", "gamma"),
    # Linear in the logarithm: a quarter of the way from 1e-5 to 1e-1 is 1e-4.
    [(0, 1e-5), (25, 1e-4), (50, 1e-3), (75, 1e-2), (100, 1e-1), (101, 1e-1), (10**9, 1e-1)],
)
def test_gamma_rises_linearly_in_its_logarithm_and_then_stays(step: int, gamma: float) -> None:
    assert gamma_at(RAMP, step) == pytest.approx(gamma, rel=1e-12)


def test_gamma_after_its_ramp_is_the_settings_value_exactly() -> None:
    assert gamma_at(RAMP, 100) == 0.1


def test_gamma_without_a_ramp_is_constant() -> None:
    settings = NaturalGradientSettings(gamma=0.3)
    assert [gamma_at(settings, step) for step in (0, 1, 1000)] == [0.3, 0.3, 0.3]


def test_gamma_may_fall() -> None:
    settings = NaturalGradientSettings(gamma=1e-3, gamma_initial=1e-1, ramp_steps=2)
    assert [gamma_at(settings, step) for step in range(4)] == pytest.approx(
        [1e-1, 1e-2, 1e-3, 1e-3], rel=1e-12
    )


@given(initial=lengths, final=lengths, ramp=st.integers(1, 1000), step=steps)
def test_gamma_moves_one_way_and_stays_between_its_ends(
    initial: float, final: float, ramp: int, step: int
) -> None:
    settings = NaturalGradientSettings(gamma=final, gamma_initial=initial, ramp_steps=ramp)
    now, then = gamma_at(settings, step), gamma_at(settings, step + 1)
    rounding = 1e-12 * max(initial, final)
    assert (then - now) * (1 if final >= initial else -1) >= -rounding
    assert min(initial, final) - rounding <= now <= max(initial, final) + rounding


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


def test_constant_rate_stays() -> None:
    settings = AdamSettings(learning_rate=0.02)
    assert [learning_rate_at(settings, step) for step in (0, 1, 10**9)] == [0.02] * 3


@given(
    decay=st.one_of(
        st.builds(
            ExponentialSchedule,
            name=st.just("exponential"),
            decay_rate=st.floats(0.01, 1.0),
            decay_steps=st.integers(1, 1000),
        ),
        st.builds(
            CosineSchedule,
            name=st.just("cosine"),
            decay_steps=st.integers(1, 1000),
            alpha=st.floats(0.0, 1.0),
        ),
    ),
    step=steps,
)
def test_rates_never_rise_nor_leave_their_range(
    decay: ExponentialSchedule | CosineSchedule, step: int
) -> None:
    settings = _adam(decay)
    now, then = learning_rate_at(settings, step), learning_rate_at(settings, step + 1)
    assert 0 <= then <= now * (1 + 1e-12)
    assert now <= 0.02 * (1 + 1e-12)


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
