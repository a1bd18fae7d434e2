"""A search from the user's side: claim a folder, search, and end with a report or a way on."""

from __future__ import annotations

import shlex
import shutil
import signal
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from natdgp.run.durable_files import NotSaved
from natdgp.run.exit_status import FAILED, SIGNALLED
from natdgp.run.interruptions import handling
from natdgp.run.process_lock import ProcessLock
from natdgp.run.run_folder import FolderError
from natdgp.run.run_session import located
from natdgp.run.trial_code import copy_trial_code, find_trial_code
from natdgp.search.cost import Cost, cost_of
from natdgp.search.data import fingerprint_of
from natdgp.search.event_log import Ledger
from natdgp.search.progress import Progress
from natdgp.search.runner import Runner, SearchError
from natdgp.search.search_display import SearchDisplay
from natdgp.search.search_folder import PATIENCE, SearchFolder
from natdgp.search.search_report import conclude
from natdgp.search.wording import trials_in_words
from natdgp.settings import Search, read_search
from natdgp.settings.configuration import trial_of


def new_search(search: Search, source: Path, out: Path | None) -> SearchFolder:
    """Claim a folder and put into it all that the search needs from elsewhere.

    :param source: the experiment's context: what its modules and `data.path` are relative to.
    :param out: the folder; by default the first free one under `runs/` with the experiment's name.
    :raises FolderError: if the folder is taken or the trial's module is missing.
    :raises DataError: if the data are missing.
    """
    trial = trial_of(search.config["entrypoint"])
    assert trial is not None, "validated"
    found = find_trial_code(trial, source)
    data = located(search.config["data"], source)
    fingerprint_of(data)  # which has to be there
    folder = SearchFolder.create(out, search.config["name"])
    try:
        copy_trial_code(found, source, folder.code)
        folder.write_config({**search.config, "data": data})
    except BaseException:
        shutil.rmtree(folder.root)
        raise
    return folder


def search_and_report(
    console: Console,
    folder: SearchFolder,
    environments: Sequence[Mapping[str, str]],
    *,
    live: bool,
) -> int:
    """Search from where the folder stands, and report.

    :param console: where to write.
    :param environments: variables for each of the trials that may be under way at once.
    :param live: redraw a table.
    :returns: the exit status.
    :raises FolderError: if another process searches in the folder, or what it remembers is damaged.
    """
    lock = ProcessLock(folder.lock)
    if not lock.hold(PATIENCE):
        raise FolderError(f"{folder.shown} is being searched by another process; end that first")
    try:
        return _search(console, folder, environments, live=live)
    finally:
        lock.release()


def _search(
    console: Console,
    folder: SearchFolder,
    environments: Sequence[Mapping[str, str]],
    *,
    live: bool,
) -> int:
    search = read_search(folder.config)
    ledger = Ledger(folder, search)
    try:
        progress, cost = Progress(search, ledger.events()), cost_of(search)
        ledger.same_data()
        ledger.mirror(progress)
        console.print(_announcement(folder, search, progress, cost), soft_wrap=True)
        display = SearchDisplay(console, cost, progress, live=live)
        runner = Runner(progress, ledger, folder, environments, display)
        with display, handling(_asking(runner)):
            runner.run()
        if runner.signal is not None and progress.open:
            console.print(
                f"{runner.signal.name}; everything is saved. Go on with:\n  {_way_on(folder)}",
                soft_wrap=True,
            )
            return SIGNALLED + int(runner.signal)
        return 0 if conclude(console, folder, progress, cost) else FAILED
    except (SearchError, NotSaved) as error:
        when = "Once that can be written, go" if isinstance(error, NotSaved) else "Go"
        console.print(f"The search cannot go on: {error}", style="bold red", soft_wrap=True)
        console.print(f"{when} on with:\n  {_way_on(folder)}", soft_wrap=True)
        return FAILED
    finally:
        ledger.close()


def _announcement(folder: SearchFolder, search: Search, progress: Progress, cost: Cost) -> str:
    steps = f"{cost.most_steps:,} steps at most"
    if cost.likely_steps < cost.most_steps:
        steps += f", about {cost.likely_steps:,} if trials are stopped as intended"
    ended = sum(trial.ending is not None for trial in progress.trials)
    begun = "Going on with" if progress.trials[0].values or ended else "Writing to"
    done = f"; {ended} have ended already" if ended else ""
    return (
        f"{begun} {folder.shown}\n"
        f"{search.searcher.name}: {trials_in_words(cost.trials)}, {steps}{done}. "
        "An estimate of time follows after the first trial."
    )


def _way_on(folder: SearchFolder) -> str:
    return f"natdgp search --resume {shlex.quote(str(folder.shown))}"


def _asking(runner: Runner) -> Callable[[int, types.FrameType | None], None]:
    """The first signal has the trials saved; a second one ends everything at once."""

    def ask(number: int, frame: types.FrameType | None) -> None:
        if runner.signal is not None:
            if number == signal.SIGHUP:  # of which a terminal that is closed may send several
                return
            raise KeyboardInterrupt
        runner.ask_to_end(signal.Signals(number))

    return ask
