"""Data: sources, division, scaling and the stateless input pipeline."""

from natdgp.data.inspection import Inspection
from natdgp.data.pipeline import evaluation_dataset, training_dataset
from natdgp.data.prepare import Numbers, Prepared, Rows, prepare
from natdgp.data.scaling import Scaling
from natdgp.data.sources import load_table
from natdgp.data.table import DataError, Table

__all__ = [
    "DataError",
    "Inspection",
    "Numbers",
    "Prepared",
    "Rows",
    "Scaling",
    "Table",
    "evaluation_dataset",
    "load_table",
    "prepare",
    "training_dataset",
]
