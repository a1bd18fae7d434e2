"""What a search starts for every trial: `python -m natdgp.search.program RUN SEARCH`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from natdgp.distributed.parent_process import end_with_parent
from natdgp.run.exit_status import REFUSED
from natdgp.run.logging_setup import silence_the_stack


def main(run: Path, search: int) -> int:
    """Train a trial from its folder's latest checkpoint; returns the exit status.

    :param search: the process that this one belongs to.
    """
    end_with_parent(search)
    silence_the_stack()

    from rich.console import Console

    from natdgp.data.table import DataError
    from natdgp.distributed.watchdog import VARIABLE, limit_from
    from natdgp.run.devices import count_gpus
    from natdgp.run.durable_files import NotSaved
    from natdgp.run.launch import require_horovod, run_on_slots
    from natdgp.run.run_folder import FolderError, RunFolder
    from natdgp.settings import read_experiment
    from natdgp.training.diagnosis import BadBatch

    console = Console(width=200, highlight=False, markup=False, emoji=False)
    folder, limit = RunFolder(run), limit_from(os.environ.get(VARIABLE))
    slots = read_experiment(folder.config).slots
    try:
        require_horovod(slots)
        gpus = count_gpus() > 0
        return run_on_slots(
            console, folder, slots, live=False, gpus=gpus, limit=limit, of_search=True
        )
    except (FolderError, DataError, BadBatch, NotSaved) as error:
        console.print(str(error), soft_wrap=True)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
