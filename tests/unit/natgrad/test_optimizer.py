"""The optimizer: what GPflow's does, and what it does besides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpflow
import gpflux
import numpy as np
import pytest
import tensorflow as tf
from gpflow.optimizers import XiNat, XiSqrtMeanVar, XiTransform
from gpflow.optimizers.natgrad import meanvarsqrt_to_expectation, natural_to_expectation
from gpflux.architectures import Config, build_constant_input_dim_deep_gp

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.parameters import are_finite, packed_triangle
from natdgp.natgrad.safeguards import numbers_of
from natdgp.natgrad.step_divergence import step_kl
from natdgp.natgrad.steps import natural_step, natural_step_diag
from tests.unit.natgrad.problems import (
    FloatArray,
    Problem,
    in_graph,
    problem_of,
    relative_error,
    square_roots,
    with_eigenvalues,
)

Adam = tf.keras.optimizers.Adam


class XiExpectation(XiTransform):
    """A transformation that only GPflow's own step knows: xi is the expectation parameters."""

    @staticmethod
    def meanvarsqrt_to_xi(mean: tf.Tensor, varsqrt: tf.Tensor) -> Any:
        return meanvarsqrt_to_expectation(mean, varsqrt)

    @staticmethod
    def xi_to_meanvarsqrt(xi1: tf.Tensor, xi2: tf.Tensor) -> Any:
        return gpflow.optimizers.natgrad.expectation_to_meanvarsqrt(xi1, xi2)

    @staticmethod
    def naturals_to_xi(nat1: tf.Tensor, nat2: tf.Tensor) -> Any:
        return natural_to_expectation(nat1, nat2)


def _problem(M: int = 6, P: int = 2, low: float = -0.5, high: float = 2.0) -> Problem:
    eigenvalues = np.random.default_rng(0).uniform(low, high, size=(P, M))
    return problem_of(square_roots(0, P, M), with_eigenvalues(0, eigenvalues))


def _svgp(latents: int = 1, **kwargs: Any) -> tuple[gpflow.models.SVGP, Any]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 1))
    Y = np.sin(3 * X + np.arange(latents)) + 0.1 * generator.normal(size=(40, latents))
    model = gpflow.models.SVGP(
        gpflow.kernels.Matern52(),
        gpflow.likelihoods.Gaussian(0.1),
        X[:8],
        num_latent_gps=latents,
        **kwargs,
    )
    return model, model.training_loss_closure((X, Y), compile=False)


def _step(optimizer: NaturalGradient, problem: Problem) -> tuple[FloatArray, FloatArray]:
    q_mu, q_sqrt = problem.parameters()
    optimizer.apply_gradients([(problem.packed(), (q_mu, q_sqrt))])
    return q_mu.numpy(), q_sqrt.numpy()


def _counts(optimizer: NaturalGradient) -> dict[str, int]:
    return {name: int(number) for name, number in optimizer.counts.items()}


# -- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_pairs_and_triples_step_as_with_gpflow(compiled: bool) -> None:
    def train(optimizer: gpflow.optimizers.NaturalGradient) -> list[FloatArray]:
        (first, first_loss), (second, second_loss) = _svgp(2), _svgp(2)
        var_list = [
            (first.q_mu, first.q_sqrt),
            (second.q_mu, second.q_sqrt, XiSqrtMeanVar()),
        ]

        def step() -> None:
            optimizer.minimize(lambda: first_loss() + 0.01 * second_loss(), var_list)

        for _ in range(3):
            (in_graph(step) if compiled else step)()
        return [parameter.numpy() for entry in var_list for parameter in entry[:2]]

    ours = train(NaturalGradient(0.3))
    theirs = train(gpflow.optimizers.NaturalGradient(0.3))
    starts = [np.zeros(1), np.eye(8)] * 2
    for mine, other, start in zip(ours, theirs, starts, strict=True):
        assert relative_error(mine, other) < 1e-10
        assert not np.allclose(mine, start)


def test_a_transformation_without_closed_form_takes_gpflows_own_step() -> None:
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(1e-3, 10, 5e-4)
    optimizer = NaturalGradient(schedule, XiExpectation())
    (ours, our_loss), (theirs, their_loss) = _svgp(), _svgp()
    reference = gpflow.optimizers.NaturalGradient(0.001, XiExpectation())
    for number in range(2):
        reference.gamma = tf.cast(schedule(number), tf.float64)
        in_graph(lambda: optimizer.minimize(our_loss, [(ours.q_mu, ours.q_sqrt)]))()
        reference.minimize(their_loss, [(theirs.q_mu, theirs.q_sqrt)])
    assert relative_error(ours.q_sqrt.numpy(), theirs.q_sqrt.numpy()) < 1e-12
    assert not np.allclose(ours.q_sqrt.numpy(), np.eye(8))
    assert _counts(optimizer)["taken"] == 2


def test_a_step_is_proposed_and_adopted_as_it_is_applied() -> None:
    (applied, its_loss), (adopted, loss) = _svgp(), _svgp()
    NaturalGradient(0.1).minimize(its_loss, [(applied.q_mu, applied.q_sqrt)])

    optimizer = NaturalGradient(0.1)
    q_mu, q_sqrt = adopted.q_mu, adopted.q_sqrt
    ((gradients, _),) = optimizer.compute_gradients(loss, [(q_mu, q_sqrt)])
    unpack = q_sqrt.transform.forward
    step = optimizer.propose(
        tf.convert_to_tensor(q_mu), tf.convert_to_tensor(q_sqrt), gradients[0], unpack(gradients[1])
    )
    new = (step.q_mu, packed_triangle(step.q_sqrt))
    optimizer.adopt(q_mu, q_sqrt, *new, numbers_of(step), are_finite(*gradients))
    np.testing.assert_array_equal(adopted.q_mu, applied.q_mu)
    np.testing.assert_array_equal(adopted.q_sqrt, applied.q_sqrt)
    assert (_counts(optimizer)["taken"], int(optimizer.iterations)) == (1, 1)

    optimizer.adopt(q_mu, q_sqrt, 2 * new[0], new[1], numbers_of(step), tf.constant(False))
    np.testing.assert_array_equal(adopted.q_mu, applied.q_mu)
    assert _counts(optimizer)["refused"] == 1


def test_nothing_is_proposed_for_a_transformation_without_closed_form() -> None:
    model, _ = _svgp()
    q_mu, q_sqrt = tf.convert_to_tensor(model.q_mu), tf.convert_to_tensor(model.q_sqrt)
    with pytest.raises(TypeError, match="XiExpectation has no step in closed form"):
        NaturalGradient(0.1, XiExpectation()).propose(q_mu, q_sqrt, q_mu, q_sqrt)


def test_a_diagonal_q_is_stepped() -> None:
    model, loss = _svgp(2, q_diag=True)
    before = float(loss())
    optimizer = NaturalGradient(0.5)
    old = [tf.constant(model.q_mu.numpy()), tf.constant(model.q_sqrt.numpy())]
    with tf.GradientTape() as tape:
        tape.watch(old)
        like, kl = _diagonal_elbo(model, *old)
        negative_elbo = kl - like
    expected = natural_step_diag(*old, *tape.gradient(negative_elbo, old), 0.5)
    optimizer.minimize(loss, [(model.q_mu, model.q_sqrt)])
    np.testing.assert_allclose(model.q_mu.numpy(), expected.q_mu, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.q_sqrt.numpy(), expected.q_sqrt, rtol=1e-8)
    for _ in range(10):
        optimizer.minimize(loss, [(model.q_mu, model.q_sqrt)])
    assert float(loss()) < before - 10


def _diagonal_elbo(
    model: gpflow.models.SVGP, q_mu: tf.Tensor, q_diag: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 1))
    Y = np.sin(3 * X + np.arange(2)) + 0.1 * generator.normal(size=(40, 2))
    mean, var = gpflow.conditionals.conditional(
        X, model.inducing_variable, model.kernel, q_mu, q_sqrt=q_diag, white=True
    )
    like = tf.reduce_sum(model.likelihood.variational_expectations(X, mean, var, Y))
    return like, gpflow.kullback_leiblers.gauss_kl(q_mu, q_diag)


def test_gradients_can_be_taken_out_processed_and_put_back() -> None:
    (one, loss), (other, other_loss) = _svgp(), _svgp()
    optimizer = NaturalGradient(0.2)
    pairs = optimizer.compute_gradients(loss, [(one.q_mu, one.q_sqrt)])
    halved = [((0.5 * g[0], 0.5 * g[1]), q) for g, q in pairs]
    iteration = optimizer.apply_gradients(halved)
    NaturalGradient(0.1).minimize(other_loss, [(other.q_mu, other.q_sqrt)])
    np.testing.assert_allclose(one.q_sqrt.numpy(), other.q_sqrt.numpy(), rtol=1e-12, atol=1e-14)
    assert int(iteration) == 1


def test_a_parameter_without_gradient_is_named() -> None:
    model, _ = _svgp()
    with pytest.raises(ValueError, match="does not depend on"):
        NaturalGradient(0.1).minimize(
            lambda: tf.reduce_sum(model.q_mu**2), [(model.q_mu, model.q_sqrt)]
        )


def test_the_step_compiles_with_xla() -> None:
    problem = _problem()
    plain, compiled = NaturalGradient(0.1), NaturalGradient(0.1)
    expected = _step(plain, problem)
    q_mu, q_sqrt = problem.parameters()
    tf.function(
        lambda: compiled.apply_gradients([(problem.packed(), (q_mu, q_sqrt))]), jit_compile=True
    )()
    np.testing.assert_allclose(q_mu.numpy(), expected[0], rtol=1e-10)
    np.testing.assert_allclose(q_sqrt.numpy(), expected[1], rtol=1e-10, atol=1e-12)
    assert _counts(compiled)["taken"] == 2


# -- gamma ---------------------------------------------------------------------------------------


def test_gamma_may_be_a_number_a_variable_a_schedule_or_a_callable() -> None:
    problem = _problem()
    expected = natural_step(*problem.tensors(), 0.25).q_sqrt
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.25, 10, 0.5)
    for gamma in (
        0.25,
        tf.Variable(0.25, dtype=tf.float64),
        tf.constant(0.25),
        schedule,
        lambda: 0.25,
    ):
        np.testing.assert_allclose(
            _step(NaturalGradient(gamma), problem)[1], expected, rtol=1e-9, atol=1e-9
        )


def test_a_variable_stays_the_variable_and_is_read_at_every_call() -> None:
    gamma = tf.Variable(0.0, dtype=tf.float64)
    optimizer, problem = NaturalGradient(gamma), _problem()
    q_mu, q_sqrt = problem.parameters()
    step = in_graph(lambda: optimizer.apply_gradients([(problem.packed(), (q_mu, q_sqrt))]))
    step()
    np.testing.assert_allclose(q_sqrt.numpy(), problem.q_sqrt, atol=1e-14)
    gamma.assign(0.1)
    step()
    assert optimizer.gamma is gamma
    assert not np.allclose(q_sqrt.numpy(), problem.q_sqrt)


def test_a_schedule_is_a_function_of_iterations() -> None:
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.4, 0.2, 0.1])
    optimizer = NaturalGradient(schedule)
    problem = _problem()
    q_mu, q_sqrt = problem.parameters()
    step = in_graph(lambda: optimizer.apply_gradients([(problem.packed(), (q_mu, q_sqrt))]))
    used = []
    for _ in range(3):
        used.append(float(optimizer.current_gamma()))
        step()
    np.testing.assert_allclose(used, [0.4, 0.2, 0.1], rtol=1e-6)
    assert int(optimizer.iterations) == 3


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mine", [False, True])
def test_a_number_assigned_to_gamma_takes_effect_in_a_traced_step(
    compiled: bool, mine: bool
) -> None:
    variable = tf.Variable(0.0, dtype=tf.float64)
    optimizer, problem = NaturalGradient(variable if mine else 0.0), _problem()
    q_mu, q_sqrt = problem.parameters()

    def step() -> None:
        optimizer.apply_gradients([(problem.packed(), (q_mu, q_sqrt))])

    run = in_graph(step) if compiled else step
    run()
    np.testing.assert_allclose(q_sqrt.numpy(), problem.q_sqrt, atol=1e-14)
    optimizer.gamma = 0.25
    run()
    expected = natural_step(*problem.tensors(), 0.25).q_sqrt
    np.testing.assert_allclose(q_sqrt.numpy(), expected, atol=1e-12)
    assert not mine or optimizer.gamma is variable
    assert float(optimizer.gamma) == 0.25
    with pytest.raises(ValueError, match=r"gamma is -1\.0"):
        optimizer.gamma = -1


def test_another_kind_of_gamma_is_refused_once_a_step_was_traced() -> None:
    optimizer = NaturalGradient(0.1)
    optimizer.gamma = lambda: 0.25  # nothing was traced yet
    assert float(optimizer.current_gamma()) == 0.25
    in_graph(optimizer.current_gamma)()
    with pytest.raises(TypeError, match="which a traced step goes on reading"):
        optimizer.gamma = 0.5


# -- what Keras' optimizers have, and this one has in another way --------------------------------


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("clipnorm", "compute_gradients"),
        ("clipvalue", "compute_gradients"),
        ("global_clipnorm", "compute_gradients"),
        ("learning_rate", "gamma"),
        ("lr", "gamma"),
    ],
)
def test_options_of_other_optimizers_are_refused_with_what_to_do(option: str, remedy: str) -> None:
    options: dict[str, Any] = {option: 0.1}
    with pytest.raises(TypeError, match=f"has no {option}; .*{remedy}"):
        NaturalGradient(**options)
    optimizer = NaturalGradient(0.1)
    with pytest.raises(AttributeError, match=f"has no {option}; .*{remedy}"):
        setattr(optimizer, option, 0.1)


def test_a_learning_rate_cannot_be_read_and_gamma_is_asked_for() -> None:
    with pytest.raises(AttributeError, match=r"has no learning_rate; .*gamma"):
        _ = NaturalGradient(0.1).learning_rate
    with pytest.raises(TypeError, match="needs gamma"):
        NaturalGradient()


@pytest.mark.parametrize("flat", [lambda m: m.trainable_variables, lambda m: (m.q_mu, m.q_sqrt)])
def test_a_flat_list_of_variables_is_refused_with_what_to_do(flat: Any) -> None:
    model, loss = _svgp()
    with pytest.raises(TypeError, match=r"give pairs .*\[\(model\.q_mu, model\.q_sqrt\)\]"):
        NaturalGradient(0.1).minimize(loss, flat(model))


def test_minimize_takes_a_callable_and_a_name() -> None:
    (plain, its_loss), (model, loss) = _svgp(), _svgp()
    NaturalGradient(0.1).minimize(its_loss, [(plain.q_mu, plain.q_sqrt)])
    optimizer = NaturalGradient(0.1)
    optimizer.minimize(loss, lambda: [(model.q_mu, model.q_sqrt)], name="step")
    np.testing.assert_array_equal(model.q_sqrt, plain.q_sqrt)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_untrainable_q_is_stepped_as_by_gpflow(compiled: bool) -> None:
    """GPflow's tutorials make q(u) untrainable, to keep it from the optimizer of the rest."""

    def train(kind: type[gpflow.optimizers.NaturalGradient], call: bool) -> FloatArray:
        model, loss = _svgp()
        gpflow.set_trainable(model.q_mu, False)
        gpflow.set_trainable(model.q_sqrt, False)
        pairs = [(model.q_mu, model.q_sqrt)]
        optimizer = kind(0.1)

        def step() -> None:
            optimizer.minimize(loss, (lambda: pairs) if call else pairs)

        (in_graph(step) if compiled else step)()
        q_sqrt: FloatArray = model.q_sqrt.numpy()
        return q_sqrt

    expected = train(gpflow.optimizers.NaturalGradient, call=False)
    assert not np.allclose(expected, np.eye(8))
    for call in (False, True):
        np.testing.assert_allclose(train(NaturalGradient, call), expected, rtol=1e-9, atol=1e-10)


# -- safety --------------------------------------------------------------------------------------


def test_the_three_kinds_differ_exactly_where_the_exact_step_fails() -> None:
    good, bad = _problem(), _problem(low=-3.0, high=-2.0)
    steep = _problem(low=-0.9, high=-0.6)  # the exact step is valid, and multiplies S by up to 10
    exact = _step(NaturalGradient(1.0, positive_definite="exact"), good)
    fallback = NaturalGradient(1.0, positive_definite="fallback")
    np.testing.assert_array_equal(_step(fallback, good)[1], exact[1])
    guaranteed = NaturalGradient(1.0, positive_definite="guaranteed")
    assert not np.allclose(_step(guaranteed, steep)[1], _step(fallback, steep)[1])
    np.testing.assert_array_equal(_step(fallback, bad)[1], _step(guaranteed, bad)[1])
    assert _counts(fallback) == {"taken": 4, "corrected": 2, "shortened": 0, "refused": 0}
    assert _counts(guaranteed) == {"taken": 0, "corrected": 4, "shortened": 0, "refused": 0}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_exact_kind_raises_as_gpflow_does_and_says_what_helps(compiled: bool) -> None:
    bad = _problem(low=-3.0, high=-2.0)

    def check(optimizer: gpflow.optimizers.NaturalGradient, message: str) -> None:
        q_mu, q_sqrt = bad.parameters()

        def step() -> None:
            optimizer._natgrad_apply_gradients(*bad.packed(), q_mu, q_sqrt)

        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            (in_graph(step) if compiled else step)()
        np.testing.assert_array_equal(q_mu.numpy(), bad.q_mu)
        np.testing.assert_array_equal(q_sqrt.numpy(), bad.q_sqrt)

    check(NaturalGradient(1.0, positive_definite="exact"), "positive_definite")
    check(gpflow.optimizers.NaturalGradient(1.0), "NaN or Inf")


def test_exact_with_a_trust_region_shortens_instead_of_raising() -> None:
    bad = _problem(low=-3.0, high=-2.0)
    optimizer = NaturalGradient(1.0, positive_definite="exact", max_kl=0.5)
    m_new, L_new = _step(optimizer, bad)
    kl = step_kl(m_new, L_new, bad.q_mu, bad.q_sqrt).numpy()
    assert np.all((kl > 0.2) & (kl <= 0.5))
    assert _counts(optimizer)["shortened"] == 2


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_gradients_that_are_not_finite_change_nothing_and_count(
    compiled: bool, worst: float
) -> None:
    problem = _problem()
    q_mu, q_sqrt = problem.parameters()
    optimizer = NaturalGradient(0.1, max_refused=3)
    scale = tf.Variable(worst, dtype=tf.float64)

    def step() -> None:
        q_mu_grad, q_sqrt_grad = problem.packed()
        optimizer._natgrad_apply_gradients(q_mu_grad, scale * q_sqrt_grad, q_mu, q_sqrt)

    run = in_graph(step) if compiled else step
    run()
    run()
    np.testing.assert_array_equal(q_mu.numpy(), problem.q_mu)
    np.testing.assert_array_equal(q_sqrt.numpy(), problem.q_sqrt)
    assert _counts(optimizer) == {"taken": 0, "corrected": 0, "shortened": 0, "refused": 4}
    assert int(optimizer.refused_in_a_row) == 2
    scale.assign(1.0)
    run()  # one good step, and the count starts anew
    assert int(optimizer.refused_in_a_row) == 0
    assert not np.allclose(q_sqrt.numpy(), problem.q_sqrt)
    scale.assign(worst)
    run()
    run()
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite 3 times in a row"):
        run()
    assert int(optimizer.iterations) >= 5


def test_one_number_that_is_not_finite_holds_every_q_of_the_call() -> None:
    problem, optimizer = _problem(), NaturalGradient(0.1, max_refused=3)
    first, second = problem.parameters(), problem.parameters()
    gradients = problem.packed()
    pairs = [(gradients, first), ((gradients[0], np.nan * gradients[1]), second)]
    optimizer.apply_gradients(pairs)
    np.testing.assert_array_equal(first[1].numpy(), problem.q_sqrt)
    assert _counts(optimizer)["refused"] == 4
    assert int(optimizer.refused_in_a_row) == 1


def test_the_decision_may_be_taken_for_a_whole_training_step() -> None:
    """Whoever knows all gradients computes steps, and takes all or none of them."""
    problem = _problem()
    optimizer, (q_mu, q_sqrt) = NaturalGradient(0.1), problem.parameters()

    @tf.function
    def train(other_gradient: tf.Tensor) -> None:
        m, L, m_grad, L_grad = problem.tensors()
        finite = are_finite(m_grad, L_grad, other_gradient)
        step = optimizer.propose(m, L, m_grad * other_gradient, L_grad)
        new = packed_triangle(step.q_sqrt)
        tf.cond(
            finite,
            lambda: optimizer.adopt(q_mu, q_sqrt, step.q_mu, new, numbers_of(step)),
            lambda: None,
        )

    train(tf.constant(np.nan, tf.float64))
    np.testing.assert_array_equal(q_sqrt.numpy(), problem.q_sqrt)
    train(tf.constant(1.0, tf.float64))
    expected = natural_step(*problem.tensors(), 0.1)
    np.testing.assert_allclose(q_sqrt.numpy(), expected.q_sqrt, atol=1e-12)
    assert _counts(optimizer) == {"taken": 2, "corrected": 0, "shortened": 0, "refused": 0}
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -0.1}, "gamma is -0.1"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"positive_definite": "always"}, "'exact', 'guaranteed', 'fallback'"),
        ({"max_kl": 0}, "max_kl is 0"),
        ({"max_refused": 0}, "max_refused is 0"),
    ],
)
def test_settings_that_mean_nothing_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NaturalGradient(**{"gamma": 0.1, **arguments})


# -- configuration and state ---------------------------------------------------------------------


def _round_trip(optimizer: NaturalGradient, **custom_objects: Any) -> NaturalGradient:
    config = json.loads(json.dumps(optimizer.get_config()))
    return NaturalGradient.from_config(config, custom_objects)


def test_the_configuration_makes_the_same_optimizer() -> None:
    optimizer = NaturalGradient(
        0.3, XiSqrtMeanVar(), "mine", positive_definite="guaranteed", max_kl=2.0, max_refused=7
    )
    again = _round_trip(optimizer)
    assert again.get_config() == optimizer.get_config()
    assert (again.gamma, again.positive_definite, again.max_kl) == (0.3, "guaranteed", 2.0)
    assert (again.max_refused, again.natgrad_name) == (7, "mine")
    assert isinstance(again.xi_transform, XiSqrtMeanVar)
    assert isinstance(_round_trip(NaturalGradient(0.1)).xi_transform, XiNat)


def test_a_schedule_and_a_variable_survive_the_configuration() -> None:
    schedule = tf.keras.optimizers.schedules.CosineDecay(0.5, 100, alpha=0.1)
    again = _round_trip(NaturalGradient(schedule)).gamma
    assert again.get_config() == schedule.get_config()
    variable = _round_trip(NaturalGradient(tf.Variable(0.2, dtype=tf.float64))).gamma
    assert isinstance(variable, tf.Variable)
    assert (variable.dtype, float(variable)) == (tf.float64, 0.2)
    assert _round_trip(NaturalGradient(lambda: 0.4)).gamma == 0.4


def test_a_users_transformation_survives_if_its_class_is_given() -> None:
    optimizer = NaturalGradient(0.1, XiExpectation())
    again = _round_trip(optimizer, XiExpectation=XiExpectation)
    assert isinstance(again.xi_transform, XiExpectation)
    with pytest.raises(ValueError, match="custom_objects"):
        _round_trip(optimizer)


def test_keras_makes_it_from_what_it_wrote() -> None:
    optimizer = NaturalGradient(0.3, XiSqrtMeanVar(), max_kl=1.0)
    config = tf.keras.optimizers.serialize(optimizer)
    again = tf.keras.optimizers.deserialize(config)
    assert isinstance(again, NaturalGradient)
    assert again.get_config() == optimizer.get_config()


def test_a_checkpoint_restores_the_state(tmp_path: Path) -> None:
    def make() -> NaturalGradient:
        return NaturalGradient(tf.Variable(0.5, dtype=tf.float64), max_refused=5)

    problem, optimizer = _problem(), make()
    _step(optimizer, problem)
    optimizer.gamma.assign(0.125)
    nan = Problem(problem.q_mu, problem.q_sqrt, problem.q_mu_grad * np.nan, problem.q_sqrt_grad)
    _step(optimizer, nan)
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "state"))
    again = make()
    assert int(again.iterations) == 0
    tf.train.Checkpoint(optimizer=again).read(path).assert_consumed()
    assert int(again.iterations) == 2
    assert int(again.refused_in_a_row) == 1
    assert float(again.gamma) == 0.125
    assert (
        _counts(again)
        == _counts(optimizer)
        == {"taken": 2, "corrected": 0, "shortened": 0, "refused": 2}
    )


# -- GPflux --------------------------------------------------------------------------------------


def _deep_gp(layers: int) -> gpflux.models.DeepGP:
    np.random.seed(0)  # k-means, inside GPflux
    config = Config(
        num_inducing=8, inner_layer_qsqrt_factor=0.1, likelihood_noise_variance=0.1, whiten=True
    )
    return build_constant_input_dim_deep_gp(_inputs(), layers, config)


def _inputs() -> FloatArray:
    return np.random.default_rng(0).uniform(size=(60, 2))


def _gpflux_losses(
    model: gpflux.optimization.NatGradModel, natural: list[gpflow.optimizers.NaturalGradient]
) -> list[float]:
    X = _inputs()
    Y = np.sin(6 * X[:, :1])
    model.natgrad_layers = True
    model.compile(optimizer=[*natural, Adam(0.01)])
    data = {"inputs": X, "targets": Y}
    fit = model.fit(data, batch_size=60, epochs=5, verbose=0, shuffle=False)
    return list(fit.history["loss"])


def test_gpfluxs_model_trains_with_it_as_with_gpflows() -> None:
    """One layer: the loss of more is sampled, with seeds that depend on the graph."""
    ours, theirs = (
        _gpflux_losses(
            _deep_gp(layers=1).as_training_model(gpflux.optimization.NatGradModel), [kind(0.5)]
        )
        for kind in (NaturalGradient, gpflow.optimizers.NaturalGradient)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # Keras reports losses in float32
    assert ours[-1] < ours[0] - 1


@pytest.fixture
def _not_functional() -> Iterator[None]:
    """Keras turns NatGradModel functional for the whole process when one is built functionally,
    and then its subclass for models that are not functional cannot be built any more."""
    bases = gpflux.optimization.NatGradModel.__bases__
    gpflux.optimization.NatGradModel.__bases__ = (tf.keras.Model,)
    yield
    gpflux.optimization.NatGradModel.__bases__ = bases


@pytest.mark.usefixtures("_not_functional")
def test_gpfluxs_wrapper_trains_two_layers_with_it() -> None:
    tf.random.set_seed(0)
    natural = [NaturalGradient(0.1), NaturalGradient(0.1)]
    model = gpflux.optimization.NatGradWrapper(_deep_gp(layers=2).as_training_model())
    losses = _gpflux_losses(model, natural)
    assert losses[-1] < losses[0] - 1
    for optimizer, latents in zip(natural, (2, 1), strict=True):
        assert int(optimizer.iterations) == 5
        assert _counts(optimizer)["taken"] == 5 * latents
