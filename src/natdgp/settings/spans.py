"""Spans of training, in one unit of batches, records or epochs."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator

from natdgp.fields import NonNegativeInt, PositiveInt, Refused, Section


class Period(Section):
    """A span of training between two events, in one unit; 0 means only at the end."""

    batches: NonNegativeInt | None = None
    records: NonNegativeInt | None = None
    epochs: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _one_unit(self) -> Period:
        if len(self.span) != 1:
            message = "must have one unit of batches, records or epochs, got "
            given = " and ".join(self.span) or "none"
            raise Refused("not-one-unit", message + given, "give one of them")
        return self

    @property
    def span(self) -> dict[str, int]:
        """The unit and its number, `{"epochs": 3}`."""
        return self.model_dump(exclude_none=True)


class Length(Period):
    """A span of training, in one unit."""

    batches: PositiveInt | None = None
    records: PositiveInt | None = None
    epochs: PositiveInt | None = None


def in_batches(
    span: Mapping[str, int], global_batch_size: int, records_per_epoch: int | None
) -> int:
    """A span of at least one batch in training steps, by the sequencer's own arithmetic.

    :param span: one unit and its number, `{"epochs": 3}`.
    :param global_batch_size: records of a batch.
    :param records_per_epoch: needed where the unit is epochs.
    """
    ((unit, length),) = span.items()
    if unit == "batches":
        return length
    if unit == "epochs":
        assert records_per_epoch is not None, "validated"
        length *= records_per_epoch
    return max(length // global_batch_size, 1)
