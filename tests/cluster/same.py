"""All that two trials have reported and saved, compared."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.master import StandInMaster
from tests.integration.states import assert_same_checkpoint, assert_same_figures


def assert_same_trial(
    straight: StandInMaster, other: StandInMaster, storage: Path, *, rtol: float = 0.0
) -> None:
    """The last checkpoint is equal, and every report; steps taken again are reported again.

    :param straight: whose trial was not interrupted.
    :param storage: the folder of all checkpoints.
    :param rtol: 0 compares to the last bit.
    """
    expected = {(one.group, one.steps_completed): one.metrics for one in straight.reports}
    got = {(one.group, one.steps_completed) for one in other.reports}
    assert got == expected.keys()
    for report in other.reports:
        group, steps = report.group, report.steps_completed
        of = f"{group} at {steps} in run {report.run}"
        assert_same_figures(expected[group, steps], report.metrics, of, rtol=rtol)
    ours, theirs = (master.checkpoints[-1] for master in (straight, other))
    assert ours.metadata["steps_completed"] == theirs.metadata["steps_completed"]
    assert_same_checkpoint(storage / ours.uuid, storage / theirs.uuid, rtol=rtol)
