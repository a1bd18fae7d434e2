"""A whole training step: natdgp beside stock GPflux and GPyTorch, and the matrix products in it.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --models 2x100 --rounds 50

The same deep GP everywhere: D = 8 features, hidden width 8, one output, the squared-exponential
kernel with one lengthscale per input, shared by the outputs of a layer as their inducing inputs
are, Gaussian noise, one Monte-Carlo sample, the same initial values, the same batch of 1000 rows;
natural gradients (gamma 0.1) for every q(u), Adam (0.01) for the rest; float64. natdgp runs the
step of its trials, reports and sampling noise included; the natural-gradient step is GPflow's, and
in `guaranteed` the one that cannot fail, which is the default of inner layers. GPflux is its own
NatGradModel with GPflow's optimizer. GPyTorch is its DeepGP with
TrilNaturalVariationalDistribution and NGD, kernels and inducing inputs shared as well (without
this, as in its tutorials, it is slower); it runs only where it is installed
(`pip install '.[benchmark]'`).

In every round each side takes three steps after an unmeasured one, side after side, so that
whatever else the machine does falls on all of them; medians are printed, and ratios of medians.
GPyTorch has rounds of its own, after all others: once PyTorch is loaded, its threads take cores
from whoever runs beside it.

`products` is the time of the bare matrix products of natdgp's step alone, at their sizes: of each
layer the forward and backward product with its q_sqrt (in blocks, zeros left out), the two
triangular solves and the product of their gradient, and the natural gradient's. What the rest of
the step takes beyond it is the most that could still be gained on this machine.

Measured on two shared cores, milliseconds, medians of 25 rounds:

| layers, M | natdgp | guaranteed | GPflux | products | GPyTorch (natdgp beside it) |
|---|---|---|---|---|---|
| 2, 100 | 13.9 | 14.4 (1.04) | 23.8 (1.72) | 8.9 (0.64) | 44.3 (13.5; 3.27) |
| 3, 256 | 110.6 | 122.8 (1.11) | 233.2 (2.11) | 74.9 (0.68) | 429.7 (117.2; 3.67) |

GPflux's ratio at M = 100 was 1.70 to 1.72 in five such runs, on slower and faster hosts; 1.62 to
1.66 with PyTorch loaded. What brought it there: a layer's derivative written out, one
product for the distances of a kernel, the gradient of q_sqrt left a matrix on one rank. What did
not: Keras' older Adam (fewer operations, no faster), q_mu apart from the columns of q_sqrt in the
backward pass (slower), one thread between operations (slower for all).
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gpflow
import gpflux
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from gpflow.inducing_variables import InducingPoints, SharedIndependentInducingVariables
from gpflow.kernels import SharedIndependent, SquaredExponential

from natdgp.distributed.reducer import Reducer
from natdgp.models.builder import TaskShape
from natdgp.models.conditional import block_width
from natdgp.models.layers.gp import GPLayer
from natdgp.settings.schema import Settings
from natdgp.training.assembly import build_optimizers, build_training_model
from natdgp.training.model import DeepGPModel

FloatArray = npt.NDArray[np.float64]

BATCH = 1000
NUM_DATA = 10_000
WIDTH = 8
GAMMA = 0.1
RATE = 0.01
STEPS = 3


class Side:
    """One way to take a step."""

    def __init__(self, name: str, run: Callable[[], Any]) -> None:
        self.name = name
        self._run = run
        self.times: list[float] = []
        for _ in range(3):  # traces and warms up
            run()

    def measure(self) -> None:
        self._run()  # a rest for the threads of the side before, which wait by spinning
        for _ in range(STEPS):
            start = time.perf_counter()
            self._run()
            self.times.append(time.perf_counter() - start)

    @property
    def median(self) -> float:
        return statistics.median(self.times) * 1e3


def data() -> tuple[FloatArray, FloatArray]:
    """[NUM_DATA, WIDTH] inputs and [NUM_DATA, 1] targets; a step sees the first BATCH rows."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(NUM_DATA, WIDTH))
    Y = np.sin(2 * X[:, :1]) + X[:, 1:2] * X[:, 2:3] + 0.1 * generator.normal(size=(NUM_DATA, 1))
    return X, (Y - Y.mean()) / Y.std()


def our_model(
    layers: int,
    M: int,
    X: FloatArray,
    reducer: Reducer | None = None,
    **natural_gradient: str,
) -> DeepGPModel:
    """natdgp's model; its natural-gradient step is GPflow's, unless other settings are given."""
    settings = Settings.read(
        {
            "global_batch_size": BATCH,
            "model": {"layers": layers, "inducing_points": M, "hidden_width": WIDTH},
            "natural_gradient": {
                "layers": "all",
                "gamma": GAMMA,
                "positive_definite": "fallback",
                **natural_gradient,
            },
            "adam": {"learning_rate": RATE},
        },
        {"source": "flights"},
    )
    shape = TaskShape(num_data=NUM_DATA, input_dim=WIDTH, output_dim=1)
    model = build_training_model(settings, shape, np.ones(1), seed=0, X=X, reducer=reducer)
    model.compile(optimizer=build_optimizers(settings, model))
    return model


def our_step(model: DeepGPModel, X: FloatArray, Y: FloatArray) -> Callable[[], Any]:
    """The training step on one batch of these rows, compiled into a graph."""
    batch = {
        "inputs": tf.constant(X),
        "targets": tf.constant(Y),
        "positions": tf.range(len(X), dtype=tf.int64),
    }
    step: Callable[[], Any] = tf.function(lambda: model.train_step(batch))
    return step


def gpflux_side(ours: DeepGPModel, X: FloatArray, Y: FloatArray) -> Side:
    """Stock GPflux from the initial values of our model."""
    deep_gp = gpflux.models.DeepGP(
        [gpflux_layer(layer) for layer in ours.deep_gp.f_layers],
        gpflow.likelihoods.Gaussian(float(ours.deep_gp.gpflow_likelihood.variance.numpy())),
    )
    model = deep_gp.as_training_model(gpflux.optimization.NatGradModel)
    model.natgrad_layers = True
    optimizers = [gpflow.optimizers.NaturalGradient(GAMMA) for _ in deep_gp.f_layers]
    model.compile(optimizer=[*optimizers, tf.keras.optimizers.Adam(RATE)])
    batch = {"inputs": tf.constant(X[:BATCH]), "targets": tf.constant(Y[:BATCH])}
    return Side("GPflux", tf.function(lambda: model.train_step((batch,))))


def gpflux_layer(ours: GPLayer) -> gpflux.layers.GPLayer:
    kernel = ours.kernel.kernel
    layer = gpflux.layers.GPLayer(
        SharedIndependent(
            SquaredExponential(float(kernel.variance.numpy()), kernel.lengthscales.numpy()),
            output_dim=ours.num_latent_gps,
        ),
        SharedIndependentInducingVariables(
            InducingPoints(ours.inducing_variable.inducing_variable.Z.numpy())
        ),
        num_data=NUM_DATA,
        mean_function=ours.mean_function,
        num_latent_gps=ours.num_latent_gps,
    )
    layer.q_sqrt.assign(ours.q_sqrt)
    return layer


def gpytorch_side(ours: DeepGPModel, X: FloatArray, Y: FloatArray) -> Side:
    """GPyTorch from the initial values of our model."""
    import gpytorch
    import torch
    from gpytorch.models.deep_gps import DeepGP, DeepGPLayer
    from gpytorch.variational import (
        TrilNaturalVariationalDistribution,
        VariationalStrategy,
    )

    torch.set_default_dtype(torch.float64)

    class Layer(DeepGPLayer):
        def __init__(self, ours: GPLayer, last: bool) -> None:
            P, M = ours.q_sqrt.shape[:2]
            batch = torch.Size([] if last else [P])
            distribution = TrilNaturalVariationalDistribution(M, batch_shape=batch)
            points = torch.tensor(ours.inducing_variable.inducing_variable.Z.numpy())
            strategy = VariationalStrategy(self, points, distribution)
            super().__init__(strategy, input_dims=WIDTH, output_dims=None if last else P)
            kernel = ours.kernel.kernel
            self.kernel = gpytorch.kernels.ScaleKernel(
                gpytorch.kernels.RBFKernel(ard_num_dims=WIDTH)
            )
            self.kernel.outputscale = float(kernel.variance.numpy())
            self.kernel.base_kernel.lengthscale = torch.tensor(kernel.lengthscales.numpy())
            self._last = last

        def forward(self, x: Any) -> Any:
            zeros = torch.zeros(x.shape[:-1])
            mean = zeros if self._last else x.diagonal(dim1=-3, dim2=-1).transpose(-1, -2)
            return gpytorch.distributions.MultivariateNormal(mean, self.kernel(x))

    class Model(DeepGP):
        def __init__(self) -> None:
            super().__init__()
            layers = ours.deep_gp.f_layers
            self.layers = torch.nn.ModuleList(
                [Layer(layer, last=layer is layers[-1]) for layer in layers]
            )
            self.likelihood = gpytorch.likelihoods.GaussianLikelihood()
            self.likelihood.noise = float(ours.deep_gp.gpflow_likelihood.variance.numpy())

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return x

    model = Model()
    objective = gpytorch.mlls.DeepApproximateMLL(
        gpytorch.mlls.VariationalELBO(model.likelihood, model, NUM_DATA)
    )
    variational = set(model.variational_parameters())
    others = [parameter for parameter in model.parameters() if parameter not in variational]
    natural = gpytorch.optim.NGD(model.variational_parameters(), num_data=NUM_DATA, lr=GAMMA)
    adam = torch.optim.Adam(others, lr=RATE)
    inputs, targets = torch.tensor(X[:BATCH]), torch.tensor(Y[:BATCH, 0])

    def step() -> None:
        with gpytorch.settings.num_likelihood_samples(1):
            natural.zero_grad()
            adam.zero_grad()
            loss = -objective(model(inputs), targets)
            loss.backward()
            natural.step()
            adam.step()

    return Side("GPyTorch", step)


def products_side(layers: int, M: int) -> Side:
    """The matrix products of our step, their operands at hand."""
    generator = np.random.default_rng(0)

    def random(*shape: int) -> tf.Variable:
        return tf.Variable(generator.normal(size=shape))

    run = []
    A, square = random(M, BATCH), random(M, M)
    for P in (*(WIDTH,) * (layers - 1), 1):
        run += [
            lambda: tf.matmul(square, A),  # L^-1 Kuf
            lambda: tf.matmul(square, A, transpose_a=True),  # its gradient
            lambda: tf.matmul(A, A, transpose_b=True),  # and that of L
        ]
        width = block_width(M, P)
        for start in range(0, M, width):
            columns = min(width, M - start)
            stacked, B = random(P * columns, M - start), random(P * columns, BATCH)

            def block(start: int = start, stacked: Any = stacked, B: Any = B) -> list[tf.Tensor]:
                rows = A[start:]
                return [
                    tf.matmul(stacked, rows),
                    tf.matmul(stacked, B, transpose_a=True),
                    tf.matmul(B, rows, transpose_b=True),
                ]

            run.append(block)
        L = random(P, M, M)
        run.append(functools.partial(tf.matmul, L, L, transpose_a=True))  # L' dLoss/dL
    return Side("products", tf.function(lambda: tf.nest.map_structure(tf.norm, [r() for r in run])))


def alternate(sides: Sequence[Side], rounds: int) -> None:
    """Measure them in turn, and print medians beside the first one's."""
    for _ in range(rounds):
        for side in sides:
            side.measure()
    for side in sides:
        share = f"{side.median / sides[0].median:6.2f} times {sides[0].name}'s"
        print(f"  {side.name:10s}{side.median:8.1f}  {share}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=["2x100", "3x256"], metavar="LAYERSxM")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    X, Y = data()
    print(f"milliseconds a step, medians of {arguments.rounds} alternating rounds")
    peers = [beside_gpflux]
    if importlib.util.find_spec("gpytorch") is not None:
        peers.append(beside_gpytorch)
    else:
        print("GPyTorch is not installed: pip install '.[benchmark]'")
    for beside in peers:
        for model in arguments.models:
            layers, M = (int(part) for part in model.split("x"))
            print(f"{layers} layers, M = {M}")
            alternate(beside(layers, M, X, Y), arguments.rounds)


def beside_gpflux(layers: int, M: int, X: FloatArray, Y: FloatArray) -> list[Side]:
    model = our_model(layers, M, X)
    safe = our_model(layers, M, X, positive_definite="guaranteed")
    return [
        Side("natdgp", our_step(model, X[:BATCH], Y[:BATCH])),
        Side("guaranteed", our_step(safe, X[:BATCH], Y[:BATCH])),
        gpflux_side(model, X, Y),
        products_side(layers, M),
    ]


def beside_gpytorch(layers: int, M: int, X: FloatArray, Y: FloatArray) -> list[Side]:
    model = our_model(layers, M, X)
    return [Side("natdgp", our_step(model, X[:BATCH], Y[:BATCH])), gpytorch_side(model, X, Y)]


if __name__ == "__main__":
    main()
