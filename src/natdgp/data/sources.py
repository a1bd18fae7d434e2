"""From settings to a table, whatever the source."""

from __future__ import annotations

from natdgp.data.data_settings import ArraysSettings, DataSettings, FlightsSettings
from natdgp.data.files import load_file
from natdgp.data.flights import load_flights
from natdgp.data.table import DataError, Table


def load_table(settings: DataSettings) -> Table:
    """Read all rows of a source, in the source's order.

    :raises DataError: if the source cannot be read or used.
    """
    if isinstance(settings, FlightsSettings):
        return load_flights(settings)
    if isinstance(settings, ArraysSettings):
        raise DataError(
            "data.source is arrays: rows that were given in Python are not kept; give them again"
        )
    return load_file(settings)
