from __future__ import annotations

from typing import Any, get_args

from natdgp.likelihoods.registry import LikelihoodSettings
from natdgp.settings.problems import groups
from natdgp.training.training_settings import LARGER_IS_BETTER, SelectionMetric


def test_models_may_be_selected_by_every_figure_that_a_likelihood_says_can_judge() -> None:
    kinds: Any = groups(LikelihoodSettings)
    figures = {f"val_{f.name}": f for kind in kinds for f in kind.likelihood.figures if f.judges}
    assert {"val_loss", "val_elbo_per_datum", *figures} == set(get_args(SelectionMetric))
    larger = {name for name, figure in figures.items() if figure.larger_is_better}
    assert {"val_elbo_per_datum", *larger} == LARGER_IS_BETTER
