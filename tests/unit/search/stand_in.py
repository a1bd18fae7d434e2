"""Does what `natdgp.search.program` does, but for training: `stand_in.py RUN SEARCH`.

A validation's value follows from the trial's learning rate and the step alone, with ties. Every
fourth step leaves a checkpoint. The experiment's description may ask for other endings.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

from natdgp.checkpoint.checksums import RECORD_NAME
from natdgp.distributed.parent_process import end_with_parent
from natdgp.run.exit_status import FAILED, MISUSED, REFUSED


def main(run: Path, search: int) -> int:
    end_with_parent(search)
    config = YAML(typ="safe", pure=True).load(run / "config.yaml")
    rate = config["hyperparameters"]["adam"]["learning_rate"]
    ending = config.get("description", "")
    if "beside" in ending:
        signal.signal(signal.SIGTERM, lambda *_: (run / "asked").touch())
    saved = sorted((run / "checkpoints").glob("step-*"))
    start = int(saved[-1].name[5:]) if saved else 0
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    kept = [line for line in lines if json.loads(line)["steps_completed"] <= start]
    aside = run / ".metrics"
    aside.write_text("".join(kept))
    aside.rename(metrics)
    (run / "starts").open("a").write(f"{start}\n")
    first = start if "initial" in ending and not saved else start + 2
    for step in range(first, config["searcher"]["max_length"]["batches"] + 1, 2):
        time.sleep(0.002)
        if rate > 0.07 and "invalid" in ending:
            session = {"ended_as": "invalid", "reason": "gamma is too long"}
            (run / "manifest.json").write_text(json.dumps({"sessions": [session]}))
            return FAILED
        if rate > 0.07 and "failed" in ending:
            return _say("ValueError: of its own", FAILED)
        if rate > 0.07 and "killed" in ending:
            os.kill(os.getpid(), signal.SIGKILL)
        if rate > 0.07 and "exits" in ending:
            return _say("of its own accord", MISUSED)
        if "refused" in ending and run.name == "trial-0000":
            while "beside" in ending and not _validated(run.parent / "trial-0001"):
                time.sleep(0.002)
            return _say("waves.csv: no such file", REFUSED)
        report = {"val_nlpd": _value_at(rate, step), "batches": step}
        entry = {"group": "validation", "steps_completed": step, "metrics": report}
        with metrics.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        stop = _judged(run / "stop-decision.json", step)
        if "beside" in ending:
            while not (run / "asked").exists():
                time.sleep(0.002)
            stop = True
        if "full" in ending and (stop or step == config["searcher"]["max_length"]["batches"]):
            return _say("no space left", FAILED)
        if stop or step % 4 == 0:
            _save(run, step)
        if stop:
            return 143
    _save(run, config["searcher"]["max_length"]["batches"])
    return 0


def _value_at(learning_rate: float, step: int) -> float:
    """Better towards a learning rate of 0.03 and with every step, to one digit, so with ties."""
    return round(2 + abs(math.log10(learning_rate / 0.03)) + 3 / max(step, 1), 1)


def _say(words: str, status: int) -> int:
    sys.stdout.write(f"{words}\n")
    return status


def _validated(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and bool((run / "metrics.jsonl").read_text())


def _judged(path: Path, step: int) -> bool:
    while not path.exists() or (decision := json.loads(path.read_text()))["steps"] < step:
        time.sleep(0.002)
    return bool(decision["stop"]) and decision["steps"] == step


def _save(run: Path, step: int) -> None:
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(exist_ok=True)
    (folder / RECORD_NAME).touch()
    (run / "best").unlink(missing_ok=True)
    (run / "best").symlink_to(folder)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
