"""Shows how far a rank is in Determined's workloads."""

from __future__ import annotations

from determined import workload

from natdgp.distributed.heartbeat import Phase
from natdgp.training.heartbeat_callback import HeartbeatCallback

_PHASES = {
    workload.Workload.Kind.RUN_STEP: Phase.TRAINING,
    workload.Workload.Kind.COMPUTE_VALIDATION_METRICS: Phase.VALIDATING,
}


class WorkloadHeartbeat(HeartbeatCallback):
    """Notes the workloads too."""

    def during(self, workloads: workload.Stream) -> workload.Stream:
        """The same workloads; what goes on between them, and saving, may take any time."""
        self.wait()
        for work, respond in workloads:
            if phase := _PHASES.get(work.kind):
                self._heartbeat.begin(phase, self._steps)
            yield work, respond
            self.wait()
