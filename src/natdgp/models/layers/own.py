"""GPflux's layers as natdgp's of the same kind."""

from __future__ import annotations

from typing import Any

import gpflux

from natdgp.models.layers.gp import GPLayer
from natdgp.models.layers.latent import LatentVariableLayer


def own_layer(layer: Any) -> Any:
    """The layer itself, or natdgp's with the parameters of one of GPflux's, which both then share.

    :raises TypeError: for anything that is no layer of a deep GP.
    """
    if hasattr(layer, "propagate"):
        return layer
    if isinstance(layer, gpflux.layers.GPLayer):
        return GPLayer.sharing(layer)
    if isinstance(layer, gpflux.layers.LatentVariableLayer):
        return LatentVariableLayer(layer.prior, layer.encoder, layer.compositor, layer.name)
    raise TypeError(
        f"a {type(layer).__name__} is no layer of a deep GP; give a GPLayer, a LatentVariableLayer"
        ", or a class with the methods of natdgp.models.layers.base.Layer"
    )
