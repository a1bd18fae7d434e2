"""Deep Gaussian processes with natural gradients, from a laptop to a Determined cluster.

In Python, a table is all that is needed::

    import natdgp
    import numpy as np

    generator = np.random.default_rng(0)
    X = generator.uniform(-3, 3, size=(500, 2))
    y = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] + 0.1 * generator.normal(size=500)

    model = natdgp.fit((X, y), validation=0.1, model={"layers": 2})
    prediction = model.predict(X[:5])  # mean, std and quantiles, in the units of y
    print(prediction.mean, prediction.std, prediction.quantiles[0.975])
    model.save("waves")  # natdgp.load("waves") brings it back

`fit` takes arrays, frames and files; `load` takes what `natdgp train` and a cluster have trained.
`DeepGPRegressor` is scikit-learn's kind of estimator. `NatGradModel`, `NatGradWrapper` and
`NaturalGradient` train models of one's own, put together as GPflux's; `DeepGP`, `GPLayer` and
`LatentVariableLayer` are what natdgp's are made of. On the command line: `natdgp --help`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from natdgp.models.deep_gp import DeepGP
    from natdgp.models.layers.gp import GPLayer
    from natdgp.models.layers.latent import LatentVariableLayer, LayerWithObservations
    from natdgp.natgrad.optimizer import NaturalGradient
    from natdgp.results.estimators import DeepGPRegressor
    from natdgp.results.fitting import fit
    from natdgp.results.trained import TrainedModel, load
    from natdgp.training.natgrad_model import NatGradModel, NatGradWrapper

__all__ = [
    "DeepGP",
    "GPLayer",
    "LatentVariableLayer",
    "LayerWithObservations",
    "NatGradModel",
    "NatGradWrapper",
    "NaturalGradient",
    "TrainedModel",
    "__version__",
    "fit",
    "load",
]
if importlib.util.find_spec("sklearn") is not None:  # or `help` would stumble over it
    __all__ += ["DeepGPRegressor"]

_MODULES = {
    "DeepGP": "natdgp.models.deep_gp",
    "DeepGPRegressor": "natdgp.results.estimators",
    "GPLayer": "natdgp.models.layers.gp",
    "LatentVariableLayer": "natdgp.models.layers.latent",
    "LayerWithObservations": "natdgp.models.layers.latent",
    "NatGradModel": "natdgp.training.natgrad_model",
    "NatGradWrapper": "natdgp.training.natgrad_model",
    "NaturalGradient": "natdgp.natgrad.optimizer",
    "TrainedModel": "natdgp.results.trained",
    "fit": "natdgp.results.fitting",
    "load": "natdgp.results.trained",
}


def __getattr__(name: str) -> object:
    # TensorFlow is imported only when it is needed, so that the command line answers at once.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
