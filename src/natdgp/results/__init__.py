"""What a trained model is good for: evaluation, prediction, report."""

from natdgp.results.baselines import baseline_figures
from natdgp.results.trained import Prediction, TrainedModel, load

__all__ = ["Prediction", "TrainedModel", "baseline_figures", "load"]
