from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf

from natdgp.models import DeepGP, Stream, TaskShape, build_deep_gp
from natdgp.natgrad import NaturalGradient
from natdgp.parallel import OneProcess
from natdgp.settings import ModelSettings
from natdgp.training import NatGradModel
from tests.conftest import FloatArray

N, B = 40, 12
GAMMA, RATE = 0.2, 0.01
Y_STD = np.array([3.0])
EVALUATION_BATCH = 8
EVALUATION_SAMPLES = 3

Batch = dict[str, tf.Tensor]


def _rows() -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N, 2))
    return X, np.sin(2 * X[:, :1]) + 0.1 * generator.normal(size=(N, 1))


def _deep_gp(layers: int = 2, **settings: Any) -> DeepGP:
    """A deep GP whose every q(u) is away from its start, so that all gradients are at work."""
    X, _ = _rows()
    deep_gp = build_deep_gp(
        ModelSettings(layers=layers, inducing_points=5, **settings),
        TaskShape(N, 2, 1),
        seed=7,
        X=X,
    )
    generator = np.random.default_rng(1)
    for layer in deep_gp.f_layers:
        layer.q_mu.assign(0.3 * generator.normal(size=layer.q_mu.shape))
        identity = np.broadcast_to(np.eye(5), layer.q_sqrt.shape)
        layer.q_sqrt.assign(np.tril(0.5 * identity + 0.05 * generator.normal(size=identity.shape)))
    return deep_gp


def _model(
    natgrad_layers: Sequence[int] = (0, 1),
    *,
    deep_gp: DeepGP | None = None,
    S: int = 1,
    gamma: float = GAMMA,
    reducer: OneProcess | None = None,
) -> NatGradModel:
    model = NatGradModel(
        deep_gp or _deep_gp(),
        natgrad_layers=natgrad_layers,
        global_batch_size=B,
        evaluation_batch_size=EVALUATION_BATCH,
        num_samples=S,
        evaluation_samples=EVALUATION_SAMPLES,
        y_std=Y_STD,
        reducer=reducer,
    )
    natural = [NaturalGradient(tf.Variable(gamma, dtype=tf.float64)) for _ in natgrad_layers]
    adam = tf.keras.optimizers.Adam(RATE)
    adam.build(model.other_variables())
    model.compile(optimizer=[*natural, adam])
    return model


def _batch(positions: Sequence[int] | range = range(B)) -> Batch:
    X, Y = _rows()
    rows = np.array(positions) % N
    return {
        "inputs": tf.constant(X[rows]),
        "targets": tf.constant(Y[rows]),
        "positions": tf.constant(list(positions), tf.int64),
    }


def _values(deep_gp: DeepGP) -> dict[str, FloatArray]:
    """Every parameter of the model by a name of its own."""
    modules = {
        **{layer.name: layer for layer in deep_gp.f_layers},
        "likelihood": deep_gp.likelihood,
    }
    return {
        f"{module}{name}": parameter.numpy().copy()
        for module, owner in modules.items()
        for name, parameter in gpflow.utilities.parameter_dict(owner).items()
        if not name.startswith("._")  # Keras' lists of the same parameters
    }


# --- which optimizer trains what --------------------------------------------------------------


@pytest.mark.parametrize("natgrad_layers", [(), (0,), (2,), (0, 2), (0, 1, 2)])
def test_variables_are_natural_or_others_and_never_both(natgrad_layers: tuple[int, ...]) -> None:
    model = _model(natgrad_layers, deep_gp=_deep_gp(layers=3))
    natural = {
        id(parameter.unconstrained_variable)
        for index in natgrad_layers
        for parameter in (model.deep_gp.f_layers[index].q_mu, model.deep_gp.f_layers[index].q_sqrt)
    }
    others = {id(variable) for variable in model.other_variables()}
    assert len(others) == len(model.other_variables())
    assert not natural & others
    # Each layer: q_mu, q_sqrt, variance, lengthscales, Z; and the likelihood's variance.
    assert len(natural) + len(others) == 3 * 5 + 1
    assert natural | others == {id(variable) for variable in model.trainable_variables}
    assert model.natgrad_layers == [model.deep_gp.f_layers[index] for index in natgrad_layers]


def test_parameters_that_are_not_trained_are_nobodys() -> None:
    model = _model(deep_gp=_deep_gp(train_inducing_points=False))
    Z = {id(v) for layer in model.deep_gp.f_layers for v in layer.inducing_variable.variables}
    assert len(Z) == 2
    assert not Z & {id(variable) for variable in model.other_variables()}


# --- the step ---------------------------------------------------------------------------------


def _loss_by_hand(deep_gp: DeepGP, batch: Batch, S: int, step: int) -> tf.Tensor:
    """Negative ELBO per row: one sample after the other, from GPflow's own pieces."""
    terms = []
    with deep_gp.noise.at(
        stream=Stream.TRAINING, step=step, rows=batch["positions"] % B, num_rows=B, num_samples=S
    ):
        for sample in range(S):
            inputs = batch["inputs"]
            for index, layer in enumerate(deep_gp.f_layers):
                mean, var = gpflow.conditionals.conditional(
                    inputs,
                    layer.inducing_variable,
                    layer.kernel,
                    layer.q_mu,
                    q_sqrt=layer.q_sqrt,
                    white=True,
                )
                mean += layer.mean_function(inputs)
                inputs = mean + tf.sqrt(var) * deep_gp.noise.normal(index, like=mean)[sample]
            terms.append(
                deep_gp.likelihood.variational_expectations(None, mean, var, batch["targets"])
            )
    kl = tf.add_n(
        [
            gpflow.kullback_leiblers.prior_kl(
                layer.inducing_variable, layer.kernel, layer.q_mu, layer.q_sqrt, whiten=True
            )
            for layer in deep_gp.f_layers
        ]
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


@pytest.mark.parametrize(("natgrad_layers", "S"), [((0, 1), 1), ((0, 1), 3), ((1,), 3)])
def test_steps_equal_steps_by_hand(natgrad_layers: tuple[int, ...], S: int) -> None:
    model, hand = _model(natgrad_layers, S=S), _deep_gp()
    natural = [(hand.f_layers[i].q_mu, hand.f_layers[i].q_sqrt) for i in natgrad_layers]
    taken = {id(parameter.unconstrained_variable) for pair in natural for parameter in pair}
    others = [v for v in hand.trainable_variables if id(v) not in taken]
    adam = tf.keras.optimizers.Adam(RATE)
    for step in range(2):
        before = _values(hand)
        batch = _batch(range(step * B, (step + 1) * B))

        def loss(batch: Batch = batch, step: int = step) -> tf.Tensor:
            return _loss_by_hand(hand, batch, S, step)

        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, others)
        stepped = [_natural_step(loss, pair) for pair in natural]
        for parameter, value_after in ((p, v) for pair in stepped for p, v in pair):
            parameter.assign(value_after)
        adam.apply_gradients(zip(gradients, others, strict=True))

        assert float(model.train_step(batch)["loss"]) == pytest.approx(float(value), rel=1e-10)
        ours, theirs = _values(model.deep_gp), _values(hand)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            # One computation in two orders of summation.
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-10, err_msg=name)
            assert np.any(expected != before[name]), name  # different before


def test_a_step_equals_gpfluxs_own_which_prints_and_ours_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # GPflux takes gradients of the mean over rows, so that its gamma is N times shorter.
    model, stock = _model(gamma=GAMMA), _model(gamma=N * GAMMA)
    with (
        stock.deep_gp.noise.at(
            stream=Stream.TRAINING, step=0, rows=tf.range(B), num_rows=B, num_samples=1
        ),
        tf.GradientTape() as tape,
    ):
        stock([_batch()["inputs"], _batch()["targets"]], training=True)
        loss = tf.add_n(stock.losses)
    capsys.readouterr()
    gpflux.optimization.NatGradModel._apply_backwards_pass(stock, loss, tape)
    assert "backwards pass" in capsys.readouterr().out

    model.train_step(_batch())
    assert capsys.readouterr() == ("", "")
    for name, expected in _values(stock.deep_gp).items():
        ours = _values(model.deep_gp)[name]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=name)  # rounding


def test_a_traced_step_equals_an_eager_one_and_is_traced_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    eager, traced = _model(), _model()
    step = tf.function(traced.train_step)
    for number in range(3):
        batch = _batch(range(number * B, (number + 1) * B))
        expected = eager.train_step(batch)
        # The compiled graph may fuse and reorder sums.
        assert float(step(batch)["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-10)
    assert step.experimental_get_tracing_count() == 1
    assert capsys.readouterr() == ("", "")


def test_step_counts_steps_and_noise_follows_it() -> None:
    model = _model()
    start = model.get_weights()
    losses = []
    for step in range(2):
        assert int(model.step) == step
        losses.append(float(model.train_step(_batch())["loss"]))
    assert int(model.step) == 2

    model.set_weights(start)
    assert int(model.step) == 0
    assert float(model.train_step(_batch())["loss"]) == losses[0]  # to the last bit

    model.set_weights(start)
    model.step.assign(1)
    other_noise = float(model.train_step(_batch())["loss"])
    assert abs(other_noise - losses[0]) > 1e-6


def test_a_vanishing_gamma_leaves_q_where_it_is() -> None:
    names = [f"layer_{index}.{q}" for index in range(2) for q in ("q_mu", "q_sqrt")]
    for gamma, moves in ((1e-14, False), (GAMMA, True)):
        model = _model(gamma=gamma)
        before = _values(model.deep_gp)
        model.train_step(_batch())
        after = _values(model.deep_gp)
        for name in names:
            # Moving to natural parameters and back costs a few digits.
            assert np.allclose(before[name], after[name], rtol=0, atol=1e-10) is not moves, name
        assert np.all(before["likelihood.variance"] != after["likelihood.variance"])


def test_a_step_reports_its_loss_in_both_units_and_the_lengths_it_used() -> None:
    model = _model()
    model.optimizer.learning_rate.assign(0.005)
    metrics = {name: float(value) for name, value in model.train_step(_batch()).items()}
    counts = {f"natgrad_{what}" for what in ("taken", "corrected", "shortened", "refused")}
    assert metrics.keys() == {"loss", "elbo_per_datum", "learning_rate", "gamma", *counts}
    assert metrics["natgrad_taken"] == sum(layer.num_latent_gps for layer in model.natgrad_layers)
    assert metrics["elbo_per_datum"] == pytest.approx(-metrics["loss"] - np.log(3.0), rel=1e-12)
    assert metrics["gamma"] == GAMMA
    assert metrics["learning_rate"] == pytest.approx(0.005, rel=1e-6)  # a float32 in Keras


def test_a_step_without_natural_gradients_reports_no_gamma() -> None:
    metrics = _model(()).train_step(_batch())
    assert metrics.keys() == {"loss", "elbo_per_datum", "learning_rate"}


# --- the reducer ------------------------------------------------------------------------------


class _Recorder(OneProcess):
    """Notes what it is given and passes a multiple of it on."""

    def __init__(self, factor: float = 1.0) -> None:
        self.calls: list[tuple[list[tf.Tensor], int]] = []
        self._factor = factor

    def average(self, gradients: Sequence[tf.Tensor], examples: tf.Tensor) -> list[tf.Tensor]:
        self.calls.append((list(gradients), int(examples)))
        return [self._factor * gradient for gradient in gradients]


def test_all_gradients_are_averaged_once_before_any_optimizer_sees_them() -> None:
    recorder = _Recorder(factor=0.0)
    model = _model(reducer=recorder)
    before = _values(model.deep_gp)
    model.train_step(_batch())
    ((gradients, examples),) = recorder.calls
    assert examples == B
    assert len(gradients) == len(model.trainable_variables)
    assert all(np.any(gradient != 0) for gradient in gradients)
    for name, value in _values(model.deep_gp).items():
        # Every optimizer got the reducer's zeros: only natural parameters' rounding is left.
        np.testing.assert_allclose(value, before[name], rtol=0, atol=1e-12, err_msg=name)


def test_gradients_of_ranks_average_to_those_of_the_global_batch() -> None:
    recorder = _Recorder()
    model = _model(reducer=recorder, S=3)
    start = model.get_weights()
    positions = range(B, 2 * B)

    def gradients_of(own: range) -> list[tf.Tensor]:
        model.set_weights(start)
        model.train_step(_batch(own))
        gradients, examples = recorder.calls[-1]
        assert examples == len(own)
        return gradients

    whole = gradients_of(positions)
    for num_ranks in (2, 3):
        ranks = [gradients_of(positions[rank::num_ranks]) for rank in range(num_ranks)]
        for expected, *by_rank in zip(whole, *ranks, strict=True):
            # Sums over the same rows in another order.
            np.testing.assert_allclose(np.mean(by_rank, axis=0), expected, rtol=1e-9, atol=1e-11)
            assert np.max(np.abs(by_rank[0] - expected)) > 1e-6  # one rank alone is not enough


# --- evaluation -------------------------------------------------------------------------------


def _evaluate(
    model: NatGradModel, batches: Sequence[Batch], step: Callable[[Batch], Any] | None = None
) -> dict[str, float]:
    model.reset_metrics()
    for batch in batches:
        figures = (step or model.test_step)(batch)
    return {name: float(value) for name, value in figures.items()}


def test_evaluation_does_not_depend_on_how_ranks_share_its_batches() -> None:
    model = _model()
    batches_of = {
        name: tf.TensorSpec([None, *t.shape[1:]], t.dtype) for name, t in _batch().items()
    }
    step = tf.function(model.test_step, input_signature=[batches_of])
    whole = [range(8), range(8, 16), range(16, 21)]  # of EVALUATION_BATCH, the last is smaller
    alone = _evaluate(model, [_batch(rows) for rows in whole], step)
    parts = [_batch(rows[rank::2]) for rank in range(2) for rows in whole]
    shared = _evaluate(model, parts, step)
    assert shared == pytest.approx(alone, rel=1e-12)  # order of sums

    lost = [
        {**part, "positions": tf.range(len(part["positions"]), dtype=tf.int64)} for part in parts
    ]
    # By their positions alone are rows known.
    assert _evaluate(model, lost, step)["crps"] != pytest.approx(alone["crps"], rel=1e-6)


def test_evaluation_is_repeatable_and_changes_no_parameter() -> None:
    model = _model()
    parameters = _values(model.deep_gp)
    before = _evaluate(model, [_batch(range(8))])
    model.step.assign(1000)
    assert _evaluate(model, [_batch(range(8))]) == before
    for name, value in _values(model.deep_gp).items():
        np.testing.assert_array_equal(value, parameters[name], err_msg=name)
    assert int(model.step) == 1000


def test_evaluation_shares_no_noise_with_training() -> None:
    model = _model()
    figures = _evaluate(model, [_batch(range(8))])
    X, Y = (tensor[:8] for tensor in _rows())
    found = {}
    for stream in (Stream.EVALUATION, Stream.TRAINING):
        with model.deep_gp.noise.at(
            stream=stream,
            step=0,
            rows=tf.range(8),
            num_rows=EVALUATION_BATCH,
            num_samples=EVALUATION_SAMPLES,
        ):
            mean, var = model.deep_gp.predict_f_samples(tf.constant(X))
            found[stream] = -np.mean(model.predictive.log_density(mean, var, tf.constant(Y)))
    assert figures["nlpd_standardised"] == pytest.approx(found[Stream.EVALUATION], rel=1e-12)
    assert abs(figures["nlpd_standardised"] - found[Stream.TRAINING]) > 1e-6


def test_one_layer_is_trained_and_evaluated_without_sampling() -> None:
    recorded: list[int] = []
    model = _model((0,), deep_gp=_deep_gp(layers=1), S=5)
    noise = model.deep_gp.noise
    at = noise.at

    def record(*, num_samples: int, **draw: Any) -> Any:
        recorded.append(num_samples)
        return at(num_samples=num_samples, **draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "at", record)
        model.train_step(_batch())
        model.test_step(_batch(range(8)))
    assert recorded == [1, 1]
