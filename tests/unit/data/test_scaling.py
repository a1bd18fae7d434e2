import numpy as np
import pytest

from natdgp.data.scaling import Scaling
from natdgp.data.table import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)) * [1, 100, 1e-5] + [0, 1e4, 7]
Y = RNG.normal(size=(50, 2)) * 5 - 3
SCALING = Scaling.fit(X, Y, "abc", "yz")


def test_scaled_rows_have_mean_zero_and_deviation_one() -> None:
    for scaled in (SCALING.scale_x(X), SCALING.scale_y(Y)):
        # 1e-8: the third feature's mean is 7e5 of its deviations, which costs six digits
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-8)


def test_predictions_return_to_original_units() -> None:
    np.testing.assert_allclose(SCALING.unscale_y_mean(SCALING.scale_y(Y)), Y, rtol=1e-12)
    one = np.ones((4, 2))
    np.testing.assert_allclose(SCALING.unscale_y_variance(one), np.tile(Y.var(axis=0), (4, 1)))


def test_columns_without_spread_are_told_together() -> None:
    constant = X.copy()
    constant[:, 1] = 0.1  # its computed deviation is not exactly 0
    with pytest.raises(DataError) as raised:
        Scaling.fit(constant, np.full((50, 2), 3.0), "abc", "yz")
    message = str(raised.value)
    assert message.startswith("the 50 training rows:")
    assert "feature 'b' has no usable spread (from 0.1 to 0.1); leave it out" in message
    assert "target 'y' has no usable spread (from 3 to 3)" in message
    assert "target 'z'" in message
    assert "'a'" not in message


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_spread_that_float64_cannot_hold_is_told(size: float) -> None:
    with pytest.raises(DataError, match="feature 'a' has no usable spread"):
        Scaling.fit(X * [size, 1, 1], Y, "abc", "yz")


def test_columns_without_spread_may_be_kept_and_become_zero() -> None:
    constant = X.copy()
    constant[:, 1] = 0.1
    scaling = Scaling.fit(constant, np.full((50, 2), 3.3), "abc", "yz", keeps_constants=True)
    assert (scaling.scale_x(constant)[:, 1] == 0).all()
    assert (scaling.scale_y(np.full((50, 2), 3.3)) == 0).all()
    np.testing.assert_array_equal(scaling.x_std[[0, 2]], SCALING.x_std[[0, 2]])
