"""Passes one-time faults from one agent process to the next by the checkpoint on the node."""

from collections.abc import Callable
from dataclasses import replace

from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.saved_state import Checkpoint
from gpufleet_common import timestamps


class FaultHandoff:
    """Collects what the checkpoint must hold, and restores what an earlier process left in it.

    Args:
        sampler: Has the faults.
        restorer: Has the acknowledgments.
        telemetry: The object as last read.
        last_attempt: Returns `observedAt` of the newest status sent, in seconds since the epoch; None if none was.
    """

    def __init__(
        self,
        sampler: Sampler,
        restorer: FaultRestorer,
        telemetry: TelemetryWatch,
        last_attempt: Callable[[], float | None],
    ) -> None:
        self._sampler = sampler
        self._restorer = restorer
        self._telemetry = telemetry
        self._last_attempt = last_attempt
        self._restored: Checkpoint | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restores a checkpoint of an earlier process."""
        self._restored = checkpoint
        self._sampler.restore(checkpoint.state)
        # Afterwards: what is restored late may have been acknowledged in the meantime.
        self._restorer.add_checkpoint(checkpoint)

    def collect(self) -> Checkpoint | None:
        """Returns what the checkpoint must hold now; None if the node's devices are not known yet."""
        state = self._sampler.saved_state()
        if state is None:
            return None
        current = self._telemetry.current
        observed_at = timestamps.to_epoch(current.status.get("observedAt")) if current else None
        reports = {self._last_attempt(), observed_at}
        if current is None and self._restored is not None:
            # The object was not read yet, so it may still be as the previous process left it: older than that
            # process's checkpoint, also if the clock was set back since.
            reports |= self._restored.reports
            state = replace(state, reported_at=max(state.reported_at, self._restored.state.reported_at))
        known = frozenset(report for report in reports if report is not None)
        return Checkpoint(state, self._restorer.acknowledgments, known)
