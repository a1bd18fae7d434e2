from __future__ import annotations

from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.models.settings import ModelSettings
from tests.conftest import FloatArray

FIRST, NUM_ROWS = 3, 5


def _rows(num_rows: int = 50) -> FloatArray:
    return np.random.default_rng(0).normal(size=(num_rows, 3))


@pytest.fixture
def X() -> tf.Tensor:
    return tf.constant(_rows()[:NUM_ROWS])


def _build(layers: int, output_dim: int = 2) -> DeepGP:
    """A deep GP whose every q(u) is away from the prior."""
    deep_gp = build_deep_gp(
        ModelSettings(layers=layers, inducing_points=6, hidden_width=4),
        TaskShape(50, 3, output_dim),
        seed=7,
        X=_rows(),
    )
    generator = np.random.default_rng(1)
    for layer in deep_gp.f_layers:
        layer.q_mu.assign(generator.normal(size=layer.q_mu.shape))
        layer.q_sqrt.assign(np.tril(generator.normal(size=layer.q_sqrt.shape)))
    return deep_gp


def _at(deep_gp: DeepGP, num_samples: int, *, first: int = FIRST, num_rows: int = NUM_ROWS) -> Any:
    return deep_gp.noise.at(
        stream=Stream.TRAINING, first=first, num_rows=num_rows, num_samples=num_samples
    )


def _by_hand(deep_gp: DeepGP, X: tf.Tensor, num_samples: int) -> tuple[FloatArray, FloatArray]:
    """Each sample on its own, from layer to layer; mean and variance of f, [S, n, Q]."""
    means, variances = [], []
    with _at(deep_gp, num_samples):
        for sample in range(num_samples):
            inputs = X
            for index, layer in enumerate(deep_gp.f_layers[:-1]):
                mean, var = layer.predict(inputs)
                inputs = mean + tf.sqrt(var) * deep_gp.noise.normal(index, like=mean)[sample]
            mean, var = deep_gp.f_layers[-1].predict(inputs)
            means.append(mean)
            variances.append(var)
    return np.asarray(means), np.asarray(variances)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_samples_equal_a_loop_over_samples_with_the_same_noise(
    X: tf.Tensor, layers: int, num_samples: int
) -> None:
    deep_gp = _build(layers)
    with _at(deep_gp, num_samples):
        mean, var = deep_gp.predict_f_samples(X)
    expected_mean, expected_var = _by_hand(deep_gp, X, num_samples)
    # The same operations on S * n rows at once and on n rows: rounding.
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(var, expected_var, rtol=1e-10, atol=1e-12)
    if num_samples > 1:  # the samples can be told apart
        assert np.min(np.abs(mean[0] - mean[1])) > 1e-6


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_first_layer_is_evaluated_once_for_all_samples(
    X: tf.Tensor, num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep_gp = _build(3)
    seen: list[int] = []
    for layer in deep_gp.f_layers:

        def predict(inputs: tf.Tensor, predict: Any = layer.predict, **kwargs: Any) -> Any:
            seen.append(len(tf.convert_to_tensor(inputs)))
            return predict(inputs, **kwargs)

        monkeypatch.setattr(layer, "predict", predict)
    with _at(deep_gp, num_samples):
        deep_gp.predict_f_samples(X)
    assert seen == [NUM_ROWS, num_samples * NUM_ROWS, num_samples * NUM_ROWS]


def test_samples_change_with_the_position_and_only_with_it(X: tf.Tensor) -> None:
    deep_gp = _build(2)
    means = []
    for first in (3, 3, 4):
        with _at(deep_gp, 2, first=first):
            means.append(deep_gp.predict_f_samples(X)[0].numpy())
    np.testing.assert_array_equal(means[0], means[1])
    assert np.all(means[0] != means[2])


@pytest.mark.parametrize("layers", [2, 3])
def test_samples_of_a_batch_are_those_of_its_parts(X: tf.Tensor, layers: int) -> None:
    deep_gp = _build(layers)
    with _at(deep_gp, 3):
        whole = deep_gp.predict_f_samples(X)
    parts = []
    for start, stop in ((0, 2), (2, NUM_ROWS)):
        with _at(deep_gp, 3, first=FIRST + start, num_rows=stop - start):
            parts.append(deep_gp.predict_f_samples(X[start:stop]))
    for expected, *pieces in zip(whole, *parts, strict=True):
        # The same operations on fewer rows: rounding.
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("layers", "drawn"), [(1, 1), (2, 20), (3, 20)])
def test_one_layer_needs_no_samples(layers: int, drawn: int) -> None:
    assert _build(layers).samples_per_row(20) == drawn


@pytest.mark.parametrize(("layers", "num_samples"), [(1, 1), (2, 1), (2, 4), (3, 4)])
def test_predictions_are_S_by_n_by_Q(X: tf.Tensor, layers: int, num_samples: int) -> None:
    deep_gp = _build(layers)
    with _at(deep_gp, num_samples):
        mean, var = deep_gp.predict_f_samples(X)
    assert mean.shape == var.shape == (num_samples, NUM_ROWS, 2)
    assert np.all(var > 0)


def test_predictions_outside_of_a_draw_are_one_repeatable_sample(X: tf.Tensor) -> None:
    deep_gp = _build(2)
    one, same = (deep_gp.predict_f_samples(X)[0] for _ in range(2))
    assert one.shape == (1, NUM_ROWS, 2)
    np.testing.assert_array_equal(one, same)


def test_one_layer_predicts_as_gpflows_svgp(X: tf.Tensor) -> None:
    deep_gp = _build(1)
    layer = deep_gp.f_layers[0]
    svgp = gpflow.models.SVGP(
        layer.kernel,
        deep_gp.likelihood,
        layer.inducing_variable,
        num_latent_gps=2,
        q_mu=layer.q_mu.numpy(),
        q_sqrt=layer.q_sqrt.numpy(),
        num_data=50,
    )
    for ours, theirs in zip(deep_gp.predict_f_samples(X), svgp.predict_f(X), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-10)  # rounding
    assert float(deep_gp.prior_kl_per_datum()) == pytest.approx(
        float(svgp.prior_kl()) / 50, rel=1e-12
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_prior_kl_is_the_sum_over_layers_per_row(layers: int) -> None:
    deep_gp = _build(layers)
    terms = [
        float(
            gpflow.kullback_leiblers.prior_kl(
                layer.inducing_variable, layer.kernel, layer.q_mu, layer.q_sqrt, whiten=True
            )
        )
        for layer in deep_gp.f_layers
    ]
    assert all(term > 1 for term in terms)
    assert float(deep_gp.prior_kl_per_datum()) == pytest.approx(sum(terms) / 50, rel=1e-12)


def test_prior_kl_of_the_prior_is_zero() -> None:
    deep_gp = build_deep_gp(
        ModelSettings(layers=1, inducing_points=6), TaskShape(50, 3, 1), seed=7, X=_rows()
    )
    assert float(deep_gp.prior_kl_per_datum()) == pytest.approx(0, abs=1e-12)


def test_inputs_of_the_wrong_type_are_refused(X: tf.Tensor) -> None:
    with pytest.raises(ValueError, match="float64"):
        _build(2).predict_f_samples(tf.cast(X, tf.float32))
