"""Every figure of GPflow's natural-gradient notebook, with this optimizer in place of GPflow's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gpflow
import numpy as np
import pytest
import tensorflow as tf
from gpflow.kernels import Matern52
from gpflow.likelihoods import Bernoulli, Gaussian
from gpflow.models import GPR, SGPR, SVGP, VGP
from gpflow.optimizers import XiSqrtMeanVar

from natdgp.natgrad.optimizer import NaturalGradient
from tests.unit.natgrad.problems import FloatArray, in_graph

TOLERANCE = 1e-4
"""As the figures are printed; they are reproduced to the last digit given."""

STEPS = 100


class Notebook(NamedTuple):
    data: tuple[FloatArray, FloatArray]
    inducing: tf.Tensor
    labels: FloatArray


@pytest.fixture
def notebook() -> Notebook:
    np.random.seed(0)
    tf.random.set_seed(0)
    x = np.random.uniform(size=(100, 2))
    y = np.sin(10 * x[:, :1]) + 5 * x[:, 1:] ** 2
    inducing = tf.cast(tf.random.uniform((10, 2)), tf.float64)
    return Notebook((x, y), inducing, np.random.choice([1.0, -1], size=x.shape))


Variational = list[tuple[gpflow.Parameter, gpflow.Parameter]]


def _adam() -> tf.keras.optimizers.legacy.Optimizer:
    return tf.keras.optimizers.legacy.Adam(0.01)


def _freeze(model: VGP | SVGP) -> Variational:
    """Keep Adam from q(u)."""
    gpflow.set_trainable(model.q_mu, False)
    gpflow.set_trainable(model.q_sqrt, False)
    return [(model.q_mu, model.q_sqrt)]


def _trainer(
    adam: tf.keras.optimizers.legacy.Optimizer,
    model: VGP | SVGP,
    loss: Callable[[], tf.Tensor],
    natural: NaturalGradient | None = None,
    variational: Any = (),
) -> Callable[[], None]:
    """A step of Adam on what is trainable, and then one of natural gradients on q(u)."""

    def step() -> None:
        adam.minimize(loss, model.trainable_variables)
        if natural is not None:
            natural.minimize(loss, variational)

    return in_graph(step)


def _minibatches(notebook: Notebook) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    dataset = tf.data.Dataset.from_tensor_slices(notebook.data)
    return iter(dataset.repeat().shuffle(100, seed=1).batch(50))


def _svgp(notebook: Notebook) -> SVGP:
    return SVGP(Matern52(), Gaussian(), notebook.inducing)


def test_natural_gradients_and_adam_follow_gpr_and_adam(notebook: Notebook) -> None:
    gpr = GPR(notebook.data, Matern52())
    vgp = VGP(notebook.data, Matern52(), Gaussian())
    natural, gpr_adam, vgp_adam = NaturalGradient(1.0), _adam(), _adam()
    assert gpr.log_marginal_likelihood().numpy() == pytest.approx(-139.56404, abs=TOLERANCE)
    assert vgp.elbo().numpy() == pytest.approx(-426.90174, abs=TOLERANCE)
    natural.minimize(vgp.training_loss, [(vgp.q_mu, vgp.q_sqrt)])
    assert vgp.elbo().numpy() == pytest.approx(-139.56406, abs=TOLERANCE)  # one step, GPR's bound
    variational = _freeze(vgp)
    for of_gpr, of_vgp in (
        (-139.2548, -139.2581),
        (-138.9456, -138.9489),
        (-138.6363, -138.6397),
        (-138.3270, -138.3305),
        (-138.0177, -138.0213),
    ):
        gpr_adam.minimize(gpr.training_loss, gpr.trainable_variables)
        natural.minimize(vgp.training_loss, variational)
        vgp_adam.minimize(vgp.training_loss, vgp.trainable_variables)
        assert gpr.log_marginal_likelihood().numpy() == pytest.approx(of_gpr, abs=TOLERANCE)
        assert vgp.elbo().numpy() == pytest.approx(of_vgp, abs=TOLERANCE)
    for model in (gpr, vgp):
        assert model.kernel.lengthscales.numpy() == pytest.approx(0.9687, abs=TOLERANCE)


def test_one_step_of_length_one_turns_svgp_into_sgpr(notebook: Notebook) -> None:
    sgpr = SGPR(notebook.data, Matern52(), notebook.inducing)
    svgp = _svgp(notebook)
    for model in (sgpr, svgp):
        model.likelihood.variance.assign(0.1)
    assert sgpr.elbo().numpy() == pytest.approx(-227.98399, abs=TOLERANCE)
    assert svgp.elbo(notebook.data).numpy() == pytest.approx(-3326.84292, abs=TOLERANCE)
    loss = svgp.training_loss_closure(notebook.data)
    NaturalGradient(1.0).minimize(loss, [(svgp.q_mu, svgp.q_sqrt)])
    assert svgp.elbo(notebook.data).numpy() == pytest.approx(-227.98399, abs=TOLERANCE)


def _mean_elbo(model: SVGP, batches: Iterator[tuple[tf.Tensor, tf.Tensor]]) -> float:
    elbo = tf.function(model.elbo)
    return float(np.mean([elbo(next(batches)) for _ in range(STEPS)]))


def test_minibatch_svgp(notebook: Notebook) -> None:
    """About -136 in the notebook, whose batches differ from run to run.

    The notebook's q(u) starts where the step of the test above left it, with noise variance 0.1;
    one minibatch more or less of 50 rows moves the mean over 100 minibatches by a few units.
    """
    svgp, batches = _svgp(notebook), _minibatches(notebook)
    svgp.likelihood.variance.assign(0.1)
    loss = svgp.training_loss_closure(batches, compile=False)
    optimizer = NaturalGradient(0.1)
    step = in_graph(lambda: optimizer.minimize(loss, [(svgp.q_mu, svgp.q_sqrt)]))
    assert _mean_elbo(svgp, batches) < -1000
    for _ in range(STEPS):
        step()
    assert _mean_elbo(svgp, batches) == pytest.approx(-136, abs=3)


def test_svgp_with_natural_gradients_beats_adam_alone(notebook: Notebook) -> None:
    """About -73.1 and about -82.8 in the notebook, one random order of minibatches each."""
    batches = _minibatches(notebook)
    ordinary, natural = _svgp(notebook), _svgp(notebook)
    losses = [one.training_loss_closure(batches, compile=False) for one in (ordinary, natural)]
    steps = (
        _trainer(_adam(), ordinary, losses[0]),
        _trainer(_adam(), natural, losses[1], NaturalGradient(0.1), _freeze(natural)),
    )
    for _ in range(STEPS):
        for step in steps:
            step()
    of_adam, of_natural = _mean_elbo(ordinary, batches), _mean_elbo(natural, batches)
    assert of_adam == pytest.approx(-82.8, abs=1.0)
    assert of_natural == pytest.approx(-73.1, abs=1.0)


def _bernoulli(notebook: Notebook) -> VGP:
    return VGP((notebook.data[0], notebook.labels), Matern52(), Bernoulli())


def test_vgp_bernoulli(notebook: Notebook) -> None:
    """One Adam for the first two models, as in the notebook: its count of steps goes on."""
    adam, optimizer = _adam(), NaturalGradient(0.1)
    ordinary, natural = _bernoulli(notebook), _bernoulli(notebook)
    assert ordinary.elbo().numpy() == natural.elbo().numpy() < -144.5
    for step in (
        _trainer(adam, ordinary, ordinary.training_loss),
        _trainer(adam, natural, natural.training_loss, optimizer, _freeze(natural)),
    ):
        for _ in range(STEPS):
            step()
    assert ordinary.elbo().numpy() == pytest.approx(-144.21401, abs=TOLERANCE)
    assert natural.elbo().numpy() == pytest.approx(-142.83800, abs=TOLERANCE)


def test_vgp_bernoulli_with_xi_sqrt_mean_var(notebook: Notebook) -> None:
    model = _bernoulli(notebook)
    assert model.elbo().numpy() < -144.5
    variational = [(*_freeze(model)[0], XiSqrtMeanVar())]
    step = _trainer(_adam(), model, model.training_loss, NaturalGradient(0.01), variational)
    for _ in range(STEPS):
        step()
    assert model.elbo().numpy() == pytest.approx(-143.09890, abs=TOLERANCE)
