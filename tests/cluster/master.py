"""A stand-in for Determined's master: it answers what a trial's containers ask, and records it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]


class NotFound(Exception):
    """Answered with 404, which for some calls is an answer like any other."""


@dataclass(frozen=True)
class Report:
    """Metrics as one run of the trial posted them."""

    run: int
    group: str
    steps_completed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as the harness reported it."""

    uuid: str
    state: str
    metadata: Mapping[str, Any]
    resources: Mapping[str, str]


@dataclass
class StandInMaster:
    """Serves one trial on 127.0.0.1 while it is entered; a resumed trial may meet it again."""

    config: Mapping[str, Any]
    """The experiment's configuration, with every default filled in."""
    context: str
    """The uploaded context directory: a compressed tar archive in base64."""
    runs: int = 0
    """Runs of the trial that were begun: every pause and every failure is followed by a new one."""

    reports: list[Report] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    early_exits: list[str] = field(default_factory=list)
    acknowledgements: int = 0
    unknown: list[str] = field(default_factory=list)
    """Calls that the stand-in could not answer: a test asserts that there were none."""

    def __post_init__(self) -> None:
        self._pause, self._pause_seen = threading.Event(), threading.Event()
        self._pause_after: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a long poll may still be waiting

    def __enter__(self) -> StandInMaster:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def begin_run(self, pause_after: int | None = None) -> int:
        """Let the trial run, again if need be; returns which of its runs this is, from 1.

        :param pause_after: the training steps after which it is told to pause, if it is.
        """
        self._pause_after = pause_after
        self._pause.clear()
        self._pause_seen.clear()
        self.runs += 1
        return self.runs

    @property
    def steps_reported(self) -> int:
        """Training steps behind the latest report of the latest run."""
        latest = [report for report in self.reports if report.run == self.runs]
        return latest[-1].steps_completed if latest else 0

    def reported(self, group: str, run: int = 1) -> list[Report]:
        """What one run reported of "training" or "validation", in its order."""
        return [report for report in self.reports if (report.group, report.run) == (group, run)]

    def answer(self, call: str, payload: Json) -> Json:
        """The reply to a call, "METHOD /path", with its query or its body."""
        for pattern, reply in CALLS.items():
            if re.fullmatch(pattern, call):
                return reply(self, payload)
        self.unknown.append(call)
        raise NotFound(f"the stand-in master cannot answer {call}")

    def _nothing(self, payload: Json) -> Json:
        return {}

    def _context_directory(self, payload: Json) -> Json:
        return {"b64Tgz": self.context}

    def _rendezvous(self, payload: Json) -> Json:
        slots = self.config["resources"]["slots_per_trial"]
        return {"rendezvousInfo": {"addresses": ["127.0.0.1"], "rank": 0, "slots": [slots]}}

    def _run_start(self, payload: Json) -> Json:
        return {"storageId": 1}

    def _trial(self, payload: Json) -> Json:
        validated = [report for report in self.reports if report.group == "validation"]
        if not validated:
            return {"trial": {}}
        return {"trial": {"latestValidation": {"totalBatches": validated[-1].steps_completed}}}

    def _preemption(self, payload: Json) -> Json:
        preempt = self._pause.wait(float(payload["timeout_seconds"]))
        if preempt:
            self._pause_seen.set()
        return {"preempt": preempt}

    def _acknowledge(self, payload: Json) -> Json:
        self.acknowledgements += 1
        return {}

    def _status(self, payload: Json) -> Json:
        return {}

    def _metrics(self, payload: Json) -> Json:
        posted = payload["metrics"]
        self.reports.append(
            Report(
                run=posted["trialRunId"],
                group=payload["group"],
                steps_completed=posted["stepsCompleted"],
                metrics=posted["metrics"]["avgMetrics"],
            )
        )
        return {}

    def _progress(self, payload: Json) -> Json:
        self.progress.append(payload["progress"])
        # Metrics come on another connection, perhaps later.
        steps = round(payload["progress"] * self.config["searcher"]["max_length"]["batches"])
        if self._pause_after is not None and steps >= self._pause_after:
            # The trial looks for the signal right after this call, so the reply waits until the
            # signal has gone out on the trial's other connection, and half a second for the
            # trial to take it in.
            self._pause.set()
            self._pause_seen.wait(timeout=10)
            time.sleep(0.5)
        return {}

    def _best_validation(self, payload: Json) -> Json:
        searcher = self.config["searcher"]
        validated = [report for report in self.reports if report.group == "validation"]
        if not validated:
            raise NotFound("no validation yet")
        best = min if searcher["smaller_is_better"] else max
        return {"metric": best(report.metrics[searcher["metric"]] for report in validated)}

    def _checkpoint(self, payload: Json) -> Json:
        self.checkpoints.append(
            Checkpoint(
                uuid=payload["uuid"],
                state=payload["state"],
                metadata=payload["metadata"],
                resources=payload["resources"],
            )
        )
        return {}

    def _early_exit(self, payload: Json) -> Json:
        self.early_exits.append(payload["reason"])
        return {}


CALLS: Mapping[str, Callable[[StandInMaster, Json], Json]] = {
    r"GET /api/v1/tasks/[^/]+/context_directory": StandInMaster._context_directory,
    r"POST /api/v1/allocations/[^/]+/acceleratorData": StandInMaster._nothing,
    r"GET /api/v1/allocations/[^/]+/resources/[^/]+/rendezvous": StandInMaster._rendezvous,
    r"GET /api/v1/allocations/[^/]+/signals/preemption": StandInMaster._preemption,
    r"POST /api/v1/allocations/[^/]+/signals/ack_preemption": StandInMaster._acknowledge,
    r"POST /api/v1/runs/start": StandInMaster._run_start,
    r"GET /api/v1/trials/\d+": StandInMaster._trial,
    r"POST /api/v1/trials/\d+/runner/metadata": StandInMaster._status,
    r"POST /api/v1/trials/\d+/metrics": StandInMaster._metrics,
    r"POST /api/v1/trials/\d+/progress": StandInMaster._progress,
    r"POST /api/v1/trials/\d+/early_exit": StandInMaster._early_exit,
    r"POST /api/v1/checkpoints": StandInMaster._checkpoint,
    r"GET /api/v1/experiments/\d+/searcher/best_searcher_validation_metric": (
        StandInMaster._best_validation
    ),
}
"""Every call of a trial's life in 0.38.1; the master sends no others on its own."""


def _handler(master: StandInMaster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(dict(parse_qsl(urlsplit(self.path).query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._reply(json.loads(body) if body else {})

        def _reply(self, payload: Json) -> None:
            try:
                status, reply = (
                    200,
                    master.answer(f"{self.command} {urlsplit(self.path).path}", payload),
                )
            except NotFound as reason:
                status, reply = 404, {"message": str(reason)}
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """The master's own log is of no interest here."""

    return Handler


def steps(master: StandInMaster, group: str, run: int = 1) -> list[int]:
    """After how many steps one run of the trial reported metrics of a group."""
    return [report.steps_completed for report in master.reported(group, run)]
