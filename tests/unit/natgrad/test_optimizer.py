"""The optimizer: what GPflow's does, and what it does besides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.optimizers import NaturalGradient as Optimizer
from gpflow.optimizers import XiNat, XiSqrtMeanVar, XiTransform
from gpflow.optimizers import natgrad as xi

from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.parameters import constrained_gradient
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

schedules = tf.keras.optimizers.schedules

RATES = ["learning_rate", "lr"]

either = pytest.mark.parametrize("run", [lambda step: step, in_graph], ids=["eager", "graph"])


class XiExpectation(XiTransform):
    """A transformation that only GPflow's own step knows: xi is the expectation parameters."""

    meanvarsqrt_to_xi = staticmethod(xi.meanvarsqrt_to_expectation)
    xi_to_meanvarsqrt = staticmethod(xi.expectation_to_meanvarsqrt)
    naturals_to_xi = staticmethod(xi.natural_to_expectation)


def _problem(low: float = -0.5, high: float = 2.0) -> Problem:
    eigenvalues = np.random.default_rng(0).uniform(low, high, size=(2, 6))
    return problem_of(square_roots(0, 2, 6), with_eigenvalues(0, eigenvalues))


def _svgp(latents: int = 1, **kwargs: Any) -> tuple[gpflow.models.SVGP, Any]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(40, 1))
    Y = np.sin(3 * X + np.arange(latents)) + 0.1 * generator.normal(size=(40, latents))
    kernel, likelihood = gpflow.kernels.Matern52(), gpflow.likelihoods.Gaussian(0.1)
    model = gpflow.models.SVGP(kernel, likelihood, X[:8], num_latent_gps=latents, **kwargs)
    return model, model.training_loss_closure((X, Y), compile=False)


def _step(optimizer: NaturalGradient, problem: Problem) -> tuple[FloatArray, FloatArray]:
    q_mu, q_sqrt = problem.parameters()
    optimizer.apply_gradients([(problem.packed(), (q_mu, q_sqrt))])
    return q_mu.numpy(), q_sqrt.numpy()


def _stepping(optimizer: NaturalGradient) -> tuple[Callable[[], Any], Problem, gpflow.Parameter]:
    """A function that makes a step on a problem, the problem, and the q_sqrt that it changes."""
    problem = _problem()
    pair = problem.parameters()
    return lambda: optimizer.apply_gradients([(problem.packed(), pair)]), problem, pair[1]


def _counts(optimizer: NaturalGradient) -> dict[str, int]:
    """Those that are not 0."""
    return {name: int(number) for name, number in optimizer.counts.items() if int(number)}


# -- the step ------------------------------------------------------------------------------------


@either
def test_pairs_and_triples_step_as_with_gpflow(run: Any) -> None:
    def train(optimizer: Optimizer) -> list[FloatArray]:
        (first, first_loss), (second, second_loss) = _svgp(2), _svgp(2)
        triple = (second.q_mu, second.q_sqrt, XiSqrtMeanVar())
        var_list = [(first.q_mu, first.q_sqrt), triple]
        step = run(
            lambda: optimizer.minimize(lambda: first_loss() + 0.01 * second_loss(), var_list)
        )
        for _ in range(3):
            step()
        return [parameter.numpy() for entry in var_list for parameter in entry[:2]]

    ours, theirs = (train(kind(0.3)) for kind in (NaturalGradient, Optimizer))
    for mine, other, start in zip(ours, theirs, [np.zeros(1), np.eye(8)] * 2, strict=True):
        assert relative_error(mine, other) < 1e-10
        assert not np.allclose(mine, start)


@either
def test_an_untrainable_q_is_stepped_as_by_gpflow(run: Any) -> None:
    """GPflow's tutorials make q(u) untrainable, to keep it from the optimizer of the rest."""

    def train(kind: type[Optimizer], call: bool, **options: Any) -> FloatArray:
        model, loss = _svgp()
        gpflow.set_trainable(model.q_mu, False)
        gpflow.set_trainable(model.q_sqrt, False)
        pairs, optimizer = [(model.q_mu, model.q_sqrt)], kind(0.1)
        run(lambda: optimizer.minimize(loss, (lambda: pairs) if call else pairs, **options))()
        return np.asarray(model.q_sqrt)

    expected = train(Optimizer, call=False)
    assert not np.allclose(expected, np.eye(8))
    ours = train(NaturalGradient, call=False), train(NaturalGradient, call=True, name="step")
    for q_sqrt in ours:
        np.testing.assert_allclose(q_sqrt, expected, rtol=1e-9, atol=1e-10)


def test_a_transformation_without_closed_form_takes_gpflows_own_step() -> None:
    schedule = schedules.PolynomialDecay(1e-3, 10, 5e-4)
    optimizer = NaturalGradient(schedule, XiExpectation())
    reference = Optimizer(0.001, XiExpectation())
    (ours, our_loss), (theirs, their_loss) = _svgp(), _svgp()
    step = in_graph(lambda: optimizer.minimize(our_loss, [(ours.q_mu, ours.q_sqrt)]))
    for number in range(2):
        reference.gamma = tf.cast(schedule(number), tf.float64)
        step()
        reference.minimize(their_loss, [(theirs.q_mu, theirs.q_sqrt)])
    assert relative_error(ours.q_sqrt.numpy(), theirs.q_sqrt.numpy()) < 1e-12
    assert not np.allclose(ours.q_sqrt.numpy(), np.eye(8))
    assert _counts(optimizer) == {"taken": 2}
    with pytest.raises(TypeError, match="XiExpectation has no step in closed form"):
        optimizer.propose(*_problem().tensors())


def test_a_diagonal_q_is_stepped() -> None:
    model, loss = _svgp(2, q_diag=True)
    optimizer, pairs = NaturalGradient(0.5), [(model.q_mu, model.q_sqrt)]
    (((q_mu_grad, packed), _),) = optimizer.compute_gradients(loss, pairs)
    q_sqrt_grad = constrained_gradient(packed, model.q_sqrt)
    old = [tf.convert_to_tensor(parameter) for parameter in pairs[0]]
    expected = natural_step_diag(*old, q_mu_grad, q_sqrt_grad, 0.5)
    optimizer.minimize(loss, pairs)
    np.testing.assert_allclose(model.q_mu.numpy(), expected.q_mu, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.q_sqrt.numpy(), expected.q_sqrt, rtol=1e-8)


def test_gradients_can_be_taken_out_processed_and_put_back() -> None:
    (one, loss), (other, other_loss) = _svgp(), _svgp()
    optimizer = NaturalGradient(0.2)
    pairs = optimizer.compute_gradients(loss, [(one.q_mu, one.q_sqrt)])
    iteration = optimizer.apply_gradients([((0.5 * g[0], 0.5 * g[1]), q) for g, q in pairs])
    NaturalGradient(0.1).minimize(other_loss, [(other.q_mu, other.q_sqrt)])
    np.testing.assert_allclose(one.q_sqrt.numpy(), other.q_sqrt.numpy(), rtol=1e-12, atol=1e-14)
    assert int(iteration) == 1


def test_the_step_compiles_with_xla() -> None:
    optimizer = NaturalGradient(0.1)
    step, problem, q_sqrt = _stepping(optimizer)
    tf.function(step, jit_compile=True)()
    expected = natural_step(*problem.tensors(), 0.1).q_sqrt
    np.testing.assert_allclose(q_sqrt.numpy(), expected, rtol=1e-10, atol=1e-12)
    assert _counts(optimizer) == {"taken": 2}


# -- gamma ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gamma",
    [
        0.25,
        tf.Variable(0.25, dtype=tf.float64),
        tf.constant(0.25),
        schedules.ExponentialDecay(0.25, 10, 0.5),
        lambda: 0.25,
    ],
)
def test_gamma_may_be_a_number_a_variable_a_schedule_or_a_callable(gamma: Any) -> None:
    problem = _problem()
    expected = natural_step(*problem.tensors(), 0.25).q_sqrt
    found = _step(NaturalGradient(gamma), problem)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_schedule_is_a_function_of_iterations() -> None:
    optimizer = NaturalGradient(schedules.PiecewiseConstantDecay([0, 1], [0.4, 0.2, 0.1]))
    step = in_graph(_stepping(optimizer)[0])
    for expected in (0.4, 0.2, 0.1):
        assert float(optimizer.current_gamma()) == pytest.approx(expected, rel=1e-6)
        step()
    assert int(optimizer.iterations) == 3


@either
@pytest.mark.parametrize("assigned_by", ["number", "number to a variable", "variable itself"])
def test_gamma_assigned_takes_effect_in_a_traced_step(run: Any, assigned_by: str) -> None:
    variable = tf.Variable(0.0, dtype=tf.float64)
    optimizer = NaturalGradient(0.0 if assigned_by == "number" else variable)
    step, problem, q_sqrt = _stepping(optimizer)
    step = run(step)
    step()
    np.testing.assert_allclose(q_sqrt.numpy(), problem.q_sqrt, atol=1e-14)
    if assigned_by == "variable itself":
        variable.assign(0.25)
    else:
        optimizer.gamma = 0.25
    step()
    expected = natural_step(*problem.tensors(), 0.25).q_sqrt
    np.testing.assert_allclose(q_sqrt.numpy(), expected, atol=1e-12)
    assert assigned_by == "number" or optimizer.gamma is variable
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


# -- what is refused with what to do -------------------------------------------------------------


@pytest.mark.parametrize("option", ["clipnorm", "clipvalue", "global_clipnorm", *RATES])
def test_options_of_other_optimizers_are_refused(option: str) -> None:
    remedy = "gamma" if option in RATES else "compute_gradients"
    options: dict[str, Any] = {option: 0.1}
    with pytest.raises(TypeError, match=f"has no {option}; .*{remedy}"):
        NaturalGradient(**options)
    optimizer = NaturalGradient(0.1)
    with pytest.raises(AttributeError, match=f"has no {option}; .*{remedy}"):
        setattr(optimizer, option, 0.1)
    if option == "learning_rate":
        with pytest.raises(AttributeError, match=f"has no {option}; .*{remedy}"):
            _ = optimizer.learning_rate


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "needs gamma"),
        ({"gamma": -0.1}, ValueError, "gamma is -0.1"),
        ({"gamma": float("nan")}, ValueError, "gamma is nan"),
        ({"gamma": 0.1, "positive_definite": "always"}, ValueError, "'exact', 'guaranteed', 'fal"),
        ({"gamma": 0.1, "max_kl": 0}, ValueError, "max_kl is 0"),
        ({"gamma": 0.1, "max_refused": 0}, ValueError, "max_refused is 0"),
    ],
)
def test_settings_that_mean_nothing_are_told(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        NaturalGradient(**arguments)


@pytest.mark.parametrize("flat", [lambda m: m.trainable_variables, lambda m: (m.q_mu, m.q_sqrt)])
def test_a_flat_list_of_variables_is_refused(flat: Any) -> None:
    model, loss = _svgp()
    with pytest.raises(TypeError, match=r"give pairs .*\[\(model\.q_mu, model\.q_sqrt\)\]"):
        NaturalGradient(0.1).minimize(loss, flat(model))


def test_a_parameter_without_gradient_is_named() -> None:
    q_mu, q_sqrt = _problem().parameters()
    with pytest.raises(ValueError, match="does not depend on"):
        NaturalGradient(0.1).minimize(lambda: tf.reduce_sum(q_mu**2), [(q_mu, q_sqrt)])


# -- safety --------------------------------------------------------------------------------------


def test_the_three_kinds_differ_exactly_where_the_exact_step_fails() -> None:
    good, bad = _problem(), _problem(-3.0, -2.0)
    steep = _problem(-0.9, -0.6)  # the exact step is valid, and multiplies S by up to 10
    exact, fallback, guaranteed = (
        NaturalGradient(1.0, positive_definite=kind) for kind in ("exact", "fallback", "guaranteed")
    )
    np.testing.assert_array_equal(_step(fallback, good)[1], _step(exact, good)[1])
    assert not np.allclose(_step(guaranteed, steep)[1], _step(fallback, steep)[1])
    np.testing.assert_array_equal(_step(fallback, bad)[1], _step(guaranteed, bad)[1])
    assert _counts(fallback) == {"taken": 4, "corrected": 2}
    assert _counts(guaranteed) == {"corrected": 4}


@either
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (NaturalGradient(1.0, positive_definite="exact"), "positive_definite"),
        (Optimizer(1.0), "NaN or Inf"),
    ],
)
def test_the_exact_kind_raises_as_gpflow_does(run: Any, optimizer: Any, message: str) -> None:
    bad = _problem(-3.0, -2.0)
    q_mu, q_sqrt = bad.parameters()
    step = run(lambda: optimizer._natgrad_apply_gradients(*bad.packed(), q_mu, q_sqrt))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        step()
    np.testing.assert_array_equal(q_mu.numpy(), bad.q_mu)
    np.testing.assert_array_equal(q_sqrt.numpy(), bad.q_sqrt)


def test_exact_with_a_trust_region_shortens_instead_of_raising() -> None:
    bad = _problem(-3.0, -2.0)
    optimizer = NaturalGradient(1.0, positive_definite="exact", max_kl=0.5)
    kl = step_kl(*_step(optimizer, bad), bad.q_mu, bad.q_sqrt).numpy()
    assert np.all((kl > 0.2) & (kl <= 0.5))
    assert _counts(optimizer)["shortened"] == 2


@either
@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_gradients_that_are_not_finite_change_nothing_and_count(run: Any, worst: float) -> None:
    problem, optimizer = _problem(), NaturalGradient(0.1, max_refused=3)
    first, second = problem.parameters(), problem.parameters()
    scale = tf.Variable(worst, dtype=tf.float64)

    def apply() -> None:
        q_mu_grad, q_sqrt_grad = problem.packed()
        # One number that is not finite holds every q of the call.
        pairs = [((q_mu_grad, q_sqrt_grad), first), ((q_mu_grad, scale * q_sqrt_grad), second)]
        optimizer.apply_gradients(pairs)

    step = run(apply)
    step()
    step()
    for q_mu, q_sqrt in (first, second):
        np.testing.assert_array_equal(q_mu.numpy(), problem.q_mu)
        np.testing.assert_array_equal(q_sqrt.numpy(), problem.q_sqrt)
    assert _counts(optimizer) == {"refused": 8}
    assert int(optimizer.refused_in_a_row) == 2
    scale.assign(1.0)
    step()  # one good step, and the count starts anew
    assert int(optimizer.refused_in_a_row) == 0
    assert not np.allclose(second[1].numpy(), problem.q_sqrt)
    scale.assign(worst)
    step()
    step()
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite 3 times in a row"):
        step()
    assert int(optimizer.iterations) >= 5


# -- configuration and state ---------------------------------------------------------------------


def _round_trip(optimizer: NaturalGradient, **custom_objects: Any) -> NaturalGradient:
    config = json.loads(json.dumps(optimizer.get_config()))
    return NaturalGradient.from_config(config, custom_objects)


def test_the_configuration_makes_the_same_optimizer() -> None:
    optimizer = NaturalGradient(
        0.3, XiSqrtMeanVar(), "mine", positive_definite="guaranteed", max_kl=2.0, max_refused=7
    )
    by_keras = tf.keras.optimizers.deserialize(tf.keras.optimizers.serialize(optimizer))
    for again in (_round_trip(optimizer), by_keras):
        assert isinstance(again, NaturalGradient)
        assert again.get_config() == optimizer.get_config()
        assert (again.gamma, again.positive_definite, again.max_kl) == (0.3, "guaranteed", 2.0)
        assert (again.max_refused, again.natgrad_name) == (7, "mine")
        assert isinstance(again.xi_transform, XiSqrtMeanVar)
    assert isinstance(_round_trip(NaturalGradient(0.1)).xi_transform, XiNat)


def test_schedules_variables_and_transformations_survive_the_configuration() -> None:
    schedule = schedules.CosineDecay(0.5, 100, alpha=0.1)
    assert _round_trip(NaturalGradient(schedule)).gamma.get_config() == schedule.get_config()
    variable = _round_trip(NaturalGradient(tf.Variable(0.2, dtype=tf.float64))).gamma
    assert isinstance(variable, tf.Variable)
    assert (variable.dtype, float(variable)) == (tf.float64, 0.2)
    assert _round_trip(NaturalGradient(lambda: 0.4)).gamma == 0.4
    of_a_user = NaturalGradient(0.1, XiExpectation())
    again = _round_trip(of_a_user, XiExpectation=XiExpectation)
    assert isinstance(again.xi_transform, XiExpectation)
    with pytest.raises(ValueError, match="custom_objects"):
        _round_trip(of_a_user)


def test_a_checkpoint_restores_the_state(tmp_path: Path) -> None:
    problem = _problem()
    optimizer, again = (NaturalGradient(tf.Variable(0.5, dtype=tf.float64)) for _ in range(2))
    _step(optimizer, problem)
    optimizer.gamma.assign(0.125)
    _step(optimizer, problem._replace(q_mu_grad=problem.q_mu_grad * np.nan))
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "state"))
    assert int(again.iterations) == 0
    tf.train.Checkpoint(optimizer=again).read(path).assert_consumed()
    assert (int(again.iterations), int(again.refused_in_a_row)) == (2, 1)
    assert float(again.gamma) == 0.125
    assert _counts(again) == _counts(optimizer) == {"taken": 2, "refused": 2}
