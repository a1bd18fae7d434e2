from __future__ import annotations

import pytest
from pydantic import ValidationError

from natdgp.natgrad.natgrad_settings import NaturalGradientSettings


def test_a_number_holds_for_every_layer_and_a_list_has_one_for_each() -> None:
    one, each = NaturalGradientSettings(gamma=0.3), NaturalGradientSettings(gamma=(0.1, 0.5))
    assert [one.gamma_of(position) for position in range(2)] == [0.3, 0.3]
    assert [each.gamma_of(position) for position in range(2)] == [0.1, 0.5]
    ramp = NaturalGradientSettings(gamma=0.5, gamma_initial=(0.1, 0.2), ramp_steps=3)
    assert [ramp.gamma_initial_of(position) for position in range(2)] == [0.1, 0.2]
    assert each.gamma_initial_of(1) == 0.5  # there is no ramp


def test_steps_are_replicated_or_sharded() -> None:
    assert NaturalGradientSettings().placement == "replicated"
    with pytest.raises(ValidationError, match="replicated"):
        NaturalGradientSettings.model_validate({"placement": "auto"})
