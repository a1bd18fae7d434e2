"""The deep GP as Keras trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.pipeline import evaluation_dataset
from natdgp.data.prepare import Rows
from natdgp.distributed.reducer import Reducer
from natdgp.likelihoods.student_t import StudentTSettings
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.training.model import DeepGPModel
from tests.conftest import FloatArray
from tests.unit.training.ranks import together
from tests.unit.training.small_models import (
    GAMMA,
    RATE,
    B,
    Batch,
    N,
    batch_of,
    rows,
    small_deep_gp,
    small_model,
    state,
    values,
)


@pytest.mark.parametrize("natgrad_layers", [(), (2,), (0, 1, 2)])
def test_variables_are_natural_or_others_and_never_both(natgrad_layers: tuple[int, ...]) -> None:
    model = small_model(natgrad_layers, deep_gp=small_deep_gp(3))
    chosen = [model.deep_gp.f_layers[index] for index in natgrad_layers]
    natural = {id(q.unconstrained_variable) for one in chosen for q in (one.q_mu, one.q_sqrt)}
    others = {id(variable) for variable in model.other_variables()}
    assert model.natgrad_layers == chosen
    assert not natural & others
    # Each layer: q_mu, q_sqrt, variance, lengthscales, Z; and the likelihood's variance.
    assert len(natural) + len(model.other_variables()) == 3 * 5 + 1
    assert natural | others == {id(variable) for variable in model.trainable_variables}


# --- the step ---------------------------------------------------------------------------------


def _loss_by_hand(deep_gp: DeepGP, batch: Batch, S: int) -> tf.Tensor:
    """Negative ELBO per row: one sample after the other, from GPflow's own pieces."""
    terms = []
    draws = deep_gp.noise.at(Stream.TRAINING, batch["positions"], S)
    for sample in range(S):
        inputs = batch["inputs"]
        for index, layer in enumerate(deep_gp.f_layers):
            prior = layer.inducing_variable, layer.kernel
            mean, var = gpflow.conditionals.conditional(
                inputs, *prior, layer.q_mu, q_sqrt=layer.q_sqrt, white=True
            )
            mean += layer.mean_function(inputs)
            noise = draws.normal(index, mean.shape[-1], mean.dtype)[sample]
            inputs = mean + tf.sqrt(var) * noise
        likelihood = deep_gp.gpflow_likelihood
        terms.append(likelihood.variational_expectations(None, mean, var, batch["targets"]))
    kl = sum(
        gpflow.kullback_leiblers.prior_kl(
            layer.inducing_variable, layer.kernel, layer.q_mu, layer.q_sqrt, whiten=True
        )
        for layer in deep_gp.f_layers
    )
    return kl / N - tf.reduce_mean(tf.stack(terms))


def _natural_step(
    loss: Callable[[], tf.Tensor], pair: tuple[gpflow.Parameter, gpflow.Parameter]
) -> list[tuple[gpflow.Parameter, FloatArray]]:
    """Where GPflow's public step on the negative ELBO of all N rows takes q_mu and q_sqrt.

    They stay where they are, for every layer's step starts from the same point.
    """
    before = [parameter.numpy() for parameter in pair]
    gpflow.optimizers.NaturalGradient(GAMMA).minimize(lambda: N * loss(), [pair])
    after = [parameter.numpy() for parameter in pair]
    for parameter, value in zip(pair, before, strict=True):
        parameter.assign(value)
    return list(zip(pair, after, strict=True))


@pytest.mark.parametrize(("natgrad_layers", "S"), [((0, 1), 3), ((1,), 1)])
def test_steps_equal_steps_by_hand(natgrad_layers: tuple[int, ...], S: int) -> None:
    model, hand = small_model(natgrad_layers, S=S), small_deep_gp()
    natural = [(hand.f_layers[i].q_mu, hand.f_layers[i].q_sqrt) for i in natgrad_layers]
    taken = {id(parameter.unconstrained_variable) for pair in natural for parameter in pair}
    others = [v for v in hand.trainable_variables if id(v) not in taken]
    adam = tf.keras.optimizers.Adam(RATE)
    for step in range(2):
        before = values(hand)
        batch = batch_of(range(step * B, (step + 1) * B))

        def loss(batch: Batch = batch) -> tf.Tensor:
            return _loss_by_hand(hand, batch, S)

        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, others)
        stepped = [_natural_step(loss, pair) for pair in natural]
        for parameter, value_after in ((p, v) for pair in stepped for p, v in pair):
            parameter.assign(value_after)
        adam.apply_gradients(zip(gradients, others, strict=True))

        assert float(model.train_step(batch)["loss"]) == pytest.approx(float(value), rel=1e-10)
        ours, theirs = values(model.deep_gp), values(hand)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            # One computation in two orders of summation.
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-10, err_msg=name)
            assert np.any(expected != before[name]), name  # different before


def test_noise_follows_the_positions_and_not_the_step() -> None:
    model = small_model()
    start = model.get_weights()
    loss = float(model.train_step(batch_of())["loss"])
    model.set_weights(start)
    model.step.assign(1)
    assert float(model.train_step(batch_of())["loss"]) == loss  # to the last bit
    model.set_weights(start)
    next_epoch = batch_of(range(N, N + B))  # the same rows
    assert abs(float(model.train_step(next_epoch)["loss"]) - loss) > 1e-6


def test_a_step_reports_its_loss_in_both_units_and_the_lengths_it_used() -> None:
    model = small_model()
    model.optimizer.learning_rate.assign(0.005)
    metrics = {name: float(value) for name, value in model.train_step(batch_of()).items()}
    counts = {f"natgrad_{what}" for what in ("taken", "corrected", "shortened", "refused")}
    told = {"loss", "elbo_per_datum", "learning_rate", "steps_refused"}
    assert metrics.keys() == told | {"gamma"} | counts
    assert metrics["natgrad_taken"] == 3  # latent GPs
    assert metrics["elbo_per_datum"] == pytest.approx(-metrics["loss"] - np.log(3.0), rel=1e-12)
    assert metrics["gamma"] == GAMMA
    assert metrics["learning_rate"] == pytest.approx(0.005, rel=1e-6)  # a float32 in Keras
    assert int(model.step) == 1
    assert small_model(()).train_step(batch_of()).keys() == told


# --- Keras' fit, evaluate and predict ---------------------------------------------------------


@pytest.mark.parametrize("given", ["arrays", "vector", "dataset"])
def test_without_positions_rows_have_those_of_the_step(given: str) -> None:
    X, Y = (array[: 3 * B] for array in rows())
    model, expected = small_model(), small_model()
    for step in range(6):  # the first 36 rows, in turn
        positions = np.arange(step * B, (step + 1) * B)
        expected.train_step({**batch_of(positions % (3 * B)), "positions": tf.constant(positions)})
    if given == "dataset":
        data = tf.data.Dataset.from_tensor_slices({"inputs": X, "targets": Y}).batch(B)
        model.fit(data, epochs=2, verbose=0)
    else:
        targets = Y[:, 0] if given == "vector" else Y
        model.fit(X, targets, batch_size=B, epochs=2, shuffle=False, verbose=0)
    for one, another in zip(state(model), state(expected), strict=True):
        # Keras' graph may fuse and reorder sums; float32 inputs would be off by 1e-8.
        np.testing.assert_allclose(one, another, rtol=0, atol=1e-11)


def test_rows_count_by_their_weights() -> None:
    X, Y = rows()
    weights = np.array([2.0, 1.0, 0.0, 3.0, 0.0, 0.0])
    times = np.repeat(np.arange(6), weights.astype(int))
    # One layer is exact: no row has noise of its own.
    weighted, repeated = (small_model((0,), deep_gp=small_deep_gp(1)) for _ in range(2))
    losses = [
        model.fit(X[some], Y[some], sample_weight=given, verbose=0).history["loss"][0]
        for model, some, given in ((weighted, range(6), weights), (repeated, times, None))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    expected = values(repeated.deep_gp)
    for name, value in values(weighted.deep_gp).items():
        # One computation in two orders of summation.
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-10, err_msg=name)
    with pytest.raises(ValueError, match="no sample weights in evaluation"):
        weighted.evaluate(X[:6], Y[:6], sample_weight=weights, verbose=0)


def test_evaluate_and_predict_take_arrays_in_float64() -> None:
    X, Y = rows()
    model = small_model()
    figures = model.evaluate(X, Y, batch_size=7, verbose=0, return_dict=True)
    expected = _evaluate(model, [batch_of(range(N))])
    assert figures["nlpd"] == pytest.approx(expected["nlpd"], rel=1e-10)
    mean, var = model.predict(X, batch_size=7, verbose=0)
    f = model.deep_gp.predictive_marginals(tf.constant(X), 3)
    by_hand = model.deep_gp.likelihood.mean_and_variance(*f)
    np.testing.assert_allclose([mean, var], by_hand, rtol=1e-10)  # products of other sizes
    assert tf.keras.backend.floatx() == "float32"  # as before


# --- evaluation -------------------------------------------------------------------------------


def _evaluate(
    model: DeepGPModel, batches: list[Batch], step: Callable[[Batch], Any] | None = None
) -> dict[str, float]:
    model.reset_metrics()
    for batch in batches:
        figures = (step or model.test_step)(batch)
    return {name: float(value) for name, value in figures.items()}


def test_figures_do_not_depend_on_batches_their_order_or_the_rows_places() -> None:
    model = small_model()
    step = tf.function(model.test_step, reduce_retracing=True)
    expected = _evaluate(model, [batch_of(range(21))], step)
    parts = [batch_of(rows) for rows in (range(7, 21), range(3, 3), range(7))]
    assert _evaluate(model, parts, step) == pytest.approx(expected, rel=1e-10)  # order of sums
    moved = {**batch_of(range(21)), "positions": tf.range(90, 111, dtype=tf.int64)}
    assert _evaluate(model, [moved], step) == expected
    model.step.assign(1000)
    assert _evaluate(model, [batch_of(range(21))], step) == expected
    another = small_model(evaluation_samples=4)
    assert _evaluate(another, [batch_of(range(21))]) != pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{}, {"likelihood": StudentTSettings(name="student_t", degrees_of_freedom=4.0)}],
    ids=["gaussian", "student_t"],
)
def test_ranks_evaluate_together_what_one_evaluates(settings: dict[str, Any]) -> None:
    X, Y = rows()
    some = Rows(X[:9], Y[:9])
    model = small_model(deep_gp=small_deep_gp(**settings))
    whole = _evaluate(model, list(evaluation_dataset(some, global_batch_size=8)))
    assert all(np.isfinite(value) for value in whole.values())

    def evaluate(reducer: Reducer) -> dict[str, float]:
        shard: dict[str, Any] = {
            "num_shards": 2,
            "wrap": lambda blocks: blocks.shard(2, reducer.rank),
        }
        own = small_model(deep_gp=small_deep_gp(**settings), reducer=reducer)
        return _evaluate(own, list(evaluation_dataset(some, global_batch_size=8, **shard)))

    by_rank = together(2, evaluate)  # 4 rows each, then 1 and 0
    assert by_rank[0] == pytest.approx(whole, rel=1e-10)  # order of sums
    assert by_rank[1] == by_rank[0]


def test_figures_are_those_of_the_models_own_formulas() -> None:
    model = small_model()
    figures = _evaluate(model, [batch_of(range(8))])
    X, Y = (tf.constant(array[:8]) for array in rows())
    deep_gp = model.deep_gp
    for stream, same in ((Stream.EVALUATION, True), (Stream.TRAINING, False)):
        f = deep_gp.predictive_marginals(X, 3, stream)
        nlpd = -np.mean(deep_gp.likelihood.log_density(*f, Y)) + np.log(3.0)
        assert bool(abs(figures["nlpd"] - nlpd) < 1e-9) == same
    f = deep_gp.predictive_marginals(X, 3, Stream.EVALUATION)
    expected = deep_gp.likelihood.expected_log_density(*f, Y)
    elbo = np.mean(expected) - float(deep_gp.kl()) / N
    assert figures["loss"] == pytest.approx(-elbo, rel=1e-12)
    assert figures["elbo_per_datum"] == pytest.approx(elbo - np.log(3.0), rel=1e-12)
