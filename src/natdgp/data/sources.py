"""From settings to a table, whatever the source."""

from __future__ import annotations

from natdgp.data.files import load_file
from natdgp.data.flights import load_flights
from natdgp.data.settings import FlightsSettings, TableSettings
from natdgp.data.table import Table


def load_table(settings: FlightsSettings | TableSettings) -> Table:
    """Read all rows of a source, in the source's order.

    :raises DataError: if the source cannot be read or used.
    """
    if isinstance(settings, FlightsSettings):
        return load_flights(settings)
    return load_file(settings)
