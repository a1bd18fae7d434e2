"""Deep GPs as scikit-learn's estimators."""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"natdgp.DeepGPRegressor needs scikit-learn 1.6 or later: {error}; "
        "pip install 'natdgp[sklearn]'"
    ) from error

from natdgp.data.arrays import table_of_arrays
from natdgp.data.table import FloatArray
from natdgp.results.fitting import fit_table
from natdgp.results.trained import TrainedModel


class DeepGPRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Deep GP regression with natural gradients, for pipelines and cross-validation. ::

        make_pipeline(StandardScaler(), DeepGPRegressor(layers=2)).fit(X, y)

    :func:`natdgp.fit` takes all settings there are; these are the most used.

    Features and targets are standardised inside. Columns that do not vary do no harm.
    """

    def __init__(
        self,
        layers: int = 2,
        inducing_points: int = 100,
        hidden_width: int | None = None,
        kernel: str = "squared_exponential",
        likelihood: str = "gaussian",
        steps: int | None = None,
        batch_size: int | None = None,
        gamma: float = 0.1,
        learning_rate: float = 0.01,
        num_samples: int = 1,
        validation_fraction: float | None = 0.1,
        patience: int | None = 5,
        dtype: str = "float64",
        progress: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        """:param layers: of the deep GP; 1 is a sparse variational GP.
        :param inducing_points: M of each layer; never more than there are distinct training rows.
        :param hidden_width: output dimension of inner layers; by default min(D, 30).
        :param kernel: of every layer: `squared_exponential`, `matern32` or `matern52`.
        :param likelihood: `gaussian` noise, or `student_t`, which bears outliers.
        :param steps: the most training steps; by default those of 20 passes over the rows, but at
            least 1000 and at most 5000.
        :param batch_size: B; by default 1024, or all rows if there are fewer.
        :param gamma: step length of natural gradients.
        :param learning_rate: of Adam.
        :param num_samples: S, Monte-Carlo samples per row in training.
        :param validation_fraction: share of the rows that tell which parameters are the best and
            when to stop. None trains on all rows, and the bound on them decides.
        :param patience: how many of 20 validations without improvement end the training; None to
            take all steps.
        :param dtype: `float64` or `float32`.
        :param progress: whether to show a progress bar.
        :param random_state: seed of the data's order, of initial values and of the sampling noise.
        """
        self.layers = layers
        self.inducing_points = inducing_points
        self.hidden_width = hidden_width
        self.kernel = kernel
        self.likelihood = likelihood
        self.steps = steps
        self.batch_size = batch_size
        self.gamma = gamma
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.dtype = dtype
        self.progress = progress
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> DeepGPRegressor:
        """Fit to X [n, D] and y, [n] or [n, Q].

        :raises SettingsError: with all parameters together that cannot be.
        """
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2 if self.validation_fraction is None else 3,
        )
        self._y_is_vector = y.ndim == 1
        batch_size = {} if self.batch_size is None else {"global_batch_size": self.batch_size}
        self.model_: TrainedModel = fit_table(
            table_of_arrays(X, y, getattr(self, "feature_names_in_", None)),
            {"validation": self.validation_fraction, "test": None},
            source={"source": "arrays", "constants": "keep"},
            steps=self.steps,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            progress=self.progress,
            settings={
                **batch_size,
                "model": {
                    "layers": self.layers,
                    "inducing_points": self.inducing_points,
                    "hidden_width": self.hidden_width,
                    "kernel": {"name": self.kernel},
                    "likelihood": {"name": self.likelihood},
                    "num_samples": self.num_samples,
                    "dtype": self.dtype,
                },
                "natural_gradient": {"gamma": self.gamma},
                "adam": {"learning_rate": self.learning_rate},
                "early_stopping": None if self.patience is None else {"patience": self.patience},
            },
        )
        return self

    def predict(
        self, X: Any, return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """The predictive mean of y, in the shape of the training targets.

        :param X: [n, D].
        :param return_std: whether to return the predictive standard deviation too, noise included.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        prediction = self.model_.predict(X, quantiles=())
        mean, std = (
            values[:, 0] if self._y_is_vector else values
            for values in (prediction.mean, prediction.std)
        )
        return (mean, std) if return_std else mean
