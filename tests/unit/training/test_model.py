from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf

from natdgp.data.pipeline import evaluation_dataset
from natdgp.data.prepare import Rows
from natdgp.distributed.reducer import OneProcess, Reducer
from natdgp.models.builder import TaskShape, build_deep_gp
from natdgp.models.deep_gp import DeepGP
from natdgp.models.noise import Stream
from natdgp.likelihoods.student_t import StudentTSettings
from natdgp.models.settings import ModelSettings
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.training.model import NatGradModel
from tests.conftest import FloatArray
from tests.unit.training.ranks import together

N, B = 40, 12
GAMMA, RATE = 0.2, 0.01
Y_STD = np.array([3.0])
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
    evaluation_samples: int = EVALUATION_SAMPLES,
    reducer: Reducer | None = None,
) -> NatGradModel:
    model = NatGradModel(
        deep_gp or _deep_gp(),
        natgrad_layers=natgrad_layers,
        num_samples=S,
        evaluation_samples=evaluation_samples,
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
    rows = np.array(positions, dtype=int) % N
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


def _loss_by_hand(deep_gp: DeepGP, batch: Batch, S: int) -> tf.Tensor:
    """Negative ELBO per row: one sample after the other, from GPflow's own pieces."""
    terms = []
    with deep_gp.noise.at(
        stream=Stream.TRAINING,
        first=int(batch["positions"][0]),
        num_rows=len(batch["positions"]),
        num_samples=S,
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
        stock.deep_gp.noise.at(stream=Stream.TRAINING, first=0, num_rows=B, num_samples=1),
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


def test_step_counts_steps() -> None:
    model = _model()
    for step in range(2):
        assert int(model.step) == step
        model.train_step(_batch())
    assert int(model.step) == 2


def test_noise_follows_the_positions_and_not_the_step() -> None:
    model = _model()
    start = model.get_weights()
    loss = float(model.train_step(_batch())["loss"])

    model.set_weights(start)
    model.step.assign(1)
    assert float(model.train_step(_batch())["loss"]) == loss  # to the last bit

    model.set_weights(start)
    next_epoch = _batch(range(N, N + B))  # the same rows
    np.testing.assert_array_equal(next_epoch["inputs"], _batch()["inputs"])
    assert abs(float(model.train_step(next_epoch)["loss"]) - loss) > 1e-6


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


class _Pair(OneProcess):
    """A rank of two that notes what it is to add up and receives something else."""

    size = 2

    def __init__(self, factor: float) -> None:
        self.asked: list[tf.Tensor] = []
        self._factor = factor

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        self.asked.append(tensor)
        examples = [0.0] * (len(tensor) - 1) + [float(tensor[-1])]
        return self._factor * (tensor - examples) + examples


def test_all_gradients_are_added_up_once_before_any_optimizer_sees_them() -> None:
    pair = _Pair(factor=0.0)
    model = _model(reducer=pair)
    before = _values(model.deep_gp)
    metrics = model.train_step(_batch())
    (vector,) = pair.asked
    # All gradients, the loss and the number of examples.
    assert len(vector) == sum(v.shape.num_elements() for v in model.trainable_variables) + 2
    assert float(vector[-1]) == B
    assert float(metrics["loss"]) == 0.0  # the one that was received
    for name, value in _values(model.deep_gp).items():
        # Every optimizer got the reducer's zeros: only natural parameters' rounding is left.
        np.testing.assert_allclose(value, before[name], rtol=0, atol=1e-12, err_msg=name)


def test_one_process_adds_nothing_up() -> None:
    class Refuses(OneProcess):
        def total(self, tensor: tf.Tensor) -> tf.Tensor:
            raise AssertionError

    _model(reducer=Refuses()).train_step(_batch())


@pytest.mark.parametrize("blocks", [(6, 6), (4, 4, 4), (5, 1, 6)], ids=str)
def test_ranks_train_together_what_one_trains(blocks: tuple[int, ...]) -> None:
    natgrad_layers, S = (1,), 3
    alone = _model(natgrad_layers, S=S)
    models = [_model(natgrad_layers, S=S) for _ in blocks]
    ends = np.cumsum(blocks)
    before = _values(alone.deep_gp)
    expected = [float(alone.train_step(_batch(range(t * B, (t + 1) * B)))["loss"]) for t in (0, 1)]

    def train(reducer: Reducer) -> list[float]:
        model = models[reducer.rank]
        model.reducer = reducer
        own = range(ends[reducer.rank] - blocks[reducer.rank], ends[reducer.rank])
        return [
            float(model.train_step(_batch([t * B + row for row in own]))["loss"]) for t in (0, 1)
        ]

    by_rank = together(len(blocks), train)
    # Sums over the same rows in another order.
    assert by_rank[0] == pytest.approx(expected, rel=1e-10)
    assert all(losses == by_rank[0] for losses in by_rank)
    values = [_values(model.deep_gp) for model in models]
    for name, value in _values(alone.deep_gp).items():
        np.testing.assert_allclose(values[0][name], value, rtol=0, atol=1e-10, err_msg=name)
        assert np.any(value != before[name]), name  # different before
        for other in values[1:]:
            np.testing.assert_array_equal(other[name], values[0][name], err_msg=name)


def test_a_rank_alone_would_train_something_else() -> None:
    alone, half = _model(), _model()
    alone.train_step(_batch())
    half.train_step(_batch(range(B // 2)))
    # Not Adam's parameters, of which its first step moves each by the learning rate.
    for index in range(2):
        whole, part = (model.deep_gp.f_layers[index].q_mu for model in (alone, half))
        assert np.max(np.abs(whole - part)) > 1e-6


# --- evaluation -------------------------------------------------------------------------------


def _evaluate(
    model: NatGradModel, batches: Sequence[Batch], step: Callable[[Batch], Any] | None = None
) -> dict[str, float]:
    model.reset_metrics()
    for batch in batches:
        figures = (step or model.test_step)(batch)
    return {name: float(value) for name, value in figures.items()}


LIKELIHOODS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"likelihood": StudentTSettings(name="student_t", scale=0.3, degrees_of_freedom=4.0)},
    ],
    ids=["gaussian", "student_t"],
)


def _traced(model: NatGradModel) -> Callable[[Batch], Any]:
    """A step for batches of any size, none included, as Keras traces it."""
    batches = {name: tf.TensorSpec([None, *t.shape[1:]], t.dtype) for name, t in _batch().items()}
    traced: Callable[[Batch], Any] = tf.function(model.test_step, input_signature=[batches])
    return traced


@LIKELIHOODS
def test_evaluation_does_not_depend_on_how_rows_are_batched(settings: dict[str, Any]) -> None:
    # Many samples, so that a Student-t's draws are few for each.
    model = _model(deep_gp=_deep_gp(**settings), evaluation_samples=50)
    step = _traced(model)
    whole = _evaluate(model, [_batch(range(21))], step)
    assert all(np.isfinite(value) for value in whole.values())
    for parts in (
        [range(8), range(8, 16), range(16, 21)],
        [range(16, 21), range(8), range(8, 16)],
        [range(4), range(4, 4), range(4, 21), range(21, 21)],  # ranks may have no rows left
    ):
        shared = _evaluate(model, [_batch(rows) for rows in parts], step)
        assert shared == pytest.approx(whole, rel=1e-10)  # order of sums

    lost = [_batch(rows) | {"positions": tf.range(7, dtype=tf.int64)} for rows in (range(7, 14),)]
    found = _evaluate(model, [_batch(range(7, 14))], step)["crps"]
    # By their positions alone are rows known.
    assert _evaluate(model, lost, step)["crps"] != pytest.approx(found, rel=1e-6)


@LIKELIHOODS
def test_ranks_evaluate_together_what_one_evaluates(settings: dict[str, Any]) -> None:
    X, Y = _rows()
    rows = Rows(X[:9], Y[:9])
    alone = _model(deep_gp=_deep_gp(**settings))
    whole = _evaluate(alone, list(evaluation_dataset(rows, global_batch_size=8)))

    def evaluate(reducer: Reducer) -> dict[str, float]:
        model = _model(deep_gp=_deep_gp(**settings), reducer=reducer)
        own = evaluation_dataset(
            rows,
            global_batch_size=8,
            num_shards=2,
            wrap=lambda blocks: blocks.shard(2, reducer.rank),
        )
        return _evaluate(model, list(own))

    by_rank = together(2, evaluate)  # 4 rows each, then 1 and 0
    assert by_rank[0] == pytest.approx(whole, rel=1e-10)  # order of sums
    assert all(figures == by_rank[0] for figures in by_rank)


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
            stream=stream, first=0, num_rows=8, num_samples=EVALUATION_SAMPLES
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
