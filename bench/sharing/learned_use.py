"""What earlier jobs of a template used, as the operator's GPUDemands keep it."""

from collections import deque

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_api.names import MAX_DEMAND_RUNS
from gpufleet_operator.demand.statistics import learned_mib, percentile
from gpufleet_operator.ledger.own_use import RECLAIM_AFTER
from sharing.shared_use import STEP_SECONDS, Job

_P80 = 80
OBSERVED_STEPS = round(RECLAIM_AFTER.total_seconds()) // STEP_SECONDS
"""Steps for which a running job must be observed, and of which its maximum is known."""


class Runs:
    """The latest jobs of each template. Jobs without a template have no history."""

    def __init__(self) -> None:
        self._jobs: dict[str, deque[Job]] = {}

    def add(self, job: Job) -> None:
        """Adds an admitted job."""
        if job.template:
            self._jobs.setdefault(job.template, deque(maxlen=MAX_DEMAND_RUNS)).append(job)

    def demand_mib(self, job: Job, sample: int) -> int | None:
        """Returns the memory with which a job is placed, as known by this sample; None: its promise."""
        maxima = [
            round(float(other.memory[: sample + 1 - other.start].max()))
            for other in self._jobs.get(job.template, ())
            if other.start <= sample and (other.end <= sample or sample - other.start >= OBSERVED_STEPS)
        ]
        if not maxima:
            return None
        status = DemandStatus(
            observed_at="2026-01-01T00:00:00Z",
            total_runs=len(maxima),
            counted_runs=len(maxima),
            p80_mib=percentile(maxima, _P80),
            max_mib=max(maxima),
        )
        return learned_mib(job.share.memory_mib, status)
