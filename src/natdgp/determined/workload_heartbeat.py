"""Shows how far a rank is in Determined's workloads."""

from __future__ import annotations

from determined import workload

from natdgp.distributed.heartbeat import Phase
from natdgp.training.heartbeat_callback import HeartbeatCallback

_PHASES = {
    workload.Workload.Kind.RUN_STEP: Phase.TRAINING,
    workload.Workload.Kind.COMPUTE_VALIDATION_METRICS: Phase.VALIDATING,
    workload.Workload.Kind.CHECKPOINT_MODEL: Phase.SAVING,
}


class WorkloadHeartbeat(HeartbeatCallback):
    """Notes the workloads too."""

    def during(self, workloads: workload.Stream) -> workload.Stream:
        """The same workloads; what goes on between them may take any time."""
        self.wait()
        for work, respond in workloads:
            self._heartbeat.begin(_PHASES[work.kind], self._steps)
            yield work, respond
            self.wait()
