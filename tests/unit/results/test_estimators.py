from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from natdgp.results.estimators import DeepGPRegressor
from natdgp.settings.problems import SettingsError
from tests.conftest import FloatArray

pytestmark = [
    pytest.mark.usefixtures("eager"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]


def _regressor() -> DeepGPRegressor:
    """Fits in two steps; the first is the best there is for the first hyperparameters."""
    return DeepGPRegressor(layers=1, inducing_points=10, steps=2, gamma=1.0, random_state=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix:UserWarning")
def test_scikit_learn_takes_it_for_an_estimator() -> None:
    results = estimator_checks.check_estimator(_regressor(), on_skip=None)
    assert len(results) > 40


@pytest.mark.parametrize(
    "check",
    [
        "check_estimators_pickle",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit_idempotent",
        "check_n_features_in_after_fitting",
        "check_regressors_train",
        "check_supervised_y_2d",
    ],
)
def test_scikit_learns_checks_pass(check: str) -> None:
    getattr(estimator_checks, check)("DeepGPRegressor", _regressor())


def test_it_is_cross_validated_in_a_pipeline(waves: tuple[FloatArray, FloatArray]) -> None:
    X, Y = waves
    pipeline = make_pipeline(StandardScaler(), _regressor().set_params(inducing_points=60))
    scores = cross_val_score(pipeline, X * [1, 100, 1e-3], Y[:, 0], cv=3)
    assert (scores > 0.6).all()


@pytest.mark.parametrize("targets", [0, 1, 2])
def test_predictions_have_the_shape_of_the_targets(
    waves: tuple[FloatArray, FloatArray], targets: int
) -> None:
    X, Y = waves
    y = Y[:, 0] if targets == 0 else np.repeat(Y, targets, axis=1)
    mean, std = _regressor().fit(X, y).predict(X[:5], return_std=True)
    assert mean.shape == std.shape == y[:5].shape
    assert (std > 0).all()


@pytest.mark.parametrize("validation_fraction", [0.1, None])
def test_columns_that_do_not_vary_do_no_harm(validation_fraction: float | None) -> None:
    X = np.column_stack([np.ones(5), np.arange(5)])
    regressor = _regressor().set_params(validation_fraction=validation_fraction)
    np.testing.assert_allclose(regressor.fit(X, np.full(5, 7.0)).predict(X), 7.0, atol=1e-6)


def test_parameters_are_checked_where_all_settings_are() -> None:
    with pytest.raises(SettingsError, match=r"hyperparameters\.model\.kernel\.name"):
        _regressor().set_params(kernel="cubic").fit(np.eye(5), np.arange(5))
