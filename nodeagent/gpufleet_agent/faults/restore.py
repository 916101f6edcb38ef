"""Restores faults and acknowledgments from the GPUTelemetry object after a restart of the agent.

The driver reports some faults only once: an XID is a single event, and a device that fell off the bus is not even
listed any more. After a restart, they are known from the last status and from the fault file on the node.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from gpufleet_agent.faults.acknowledgments import read_acknowledgments
from gpufleet_agent.faults.merge import (
    changes_since,
    is_status_newer,
    merge,
    only_cleared,
    without_acknowledged_losses,
)
from gpufleet_agent.faults.status import read_status
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedState

log = structlog.get_logger(__name__)

MAX_ACKNOWLEDGMENTS = 256
_NEVER = 0.0
"""Earlier than any event."""


class FaultRestorer:
    """Passes on what the object holds: the last status once, and each acknowledgment once.

    An annotation remains on the object and is part of every version of it. Applied again it would also cover later
    faults whenever its time is not in the past by the node's clock: because it is in the future, or because the clock
    was set back. So acknowledgments that the checkpoint lists as applied are not applied again: the faults that they
    covered are not in the checkpoint, and those in it came later, regardless of the clock. If an earlier process may
    have applied them, they apply up to its last status at most, and not at all while their time is in the future.

    Args:
        boot_id: The node's boot ID.
        restore: Receives the last status.
        acknowledge: Receives each acknowledgment.
        unreadable: Called for each part of the status that cannot be decoded.
        clock: Returns seconds since the epoch.
    """

    def __init__(
        self,
        boot_id: str | None,
        restore: Callable[[SavedState], None],
        acknowledge: Callable[[FaultAcknowledgment], None],
        unreadable: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._boot_id = boot_id
        self._restore = restore
        self._acknowledge = acknowledge
        self._unreadable = unreadable
        self._clock = clock
        self._observed = False
        self._checkpoint: Checkpoint | None = None
        self._status: SavedState | None = None
        """Status of the first version."""
        self._applied: dict[FaultAcknowledgment, float] = {}
        """Acknowledgments passed on, each with the time up to which it applied."""
        self._current: tuple[FaultAcknowledgment, ...] = ()
        """Acknowledgments in the latest version."""

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Takes the checkpoint into account, whose state was restored; before the first version if the disk is fast."""
        self._checkpoint = checkpoint
        if not self._observed:
            return
        # It came too late to be merged with the status: what has ended since it was written ends again.
        if self._status is not None and is_status_newer(self._status, checkpoint):
            merged = merge(checkpoint.state, self._status, status_is_newer=True)
            self._restore(only_cleared(changes_since(merged, checkpoint.state)))
        for acknowledgment, until in self._applied.items():
            if until != _NEVER and acknowledgment not in checkpoint.acknowledgments:
                self._acknowledge(replace(acknowledgment, until=until))

    @property
    def acknowledgments(self) -> Mapping[FaultAcknowledgment, float]:
        """The object's acknowledgments, with the time up to which each applied (seconds since the epoch); at most 256.

        Until the object was read, those of the checkpoint, because the object may still have them.
        """
        if not self._observed and self._checkpoint is not None:
            return self._checkpoint.acknowledgments
        return {one: self._applied[one] for one in self._current[-MAX_ACKNOWLEDGMENTS:]}

    def observe(self, version: TelemetryObject) -> None:
        """Processes a version of the object. The first one has the last status of an earlier process."""
        first, self._observed = not self._observed, True
        state = self._restore_status(version) if first else None
        self._current = read_acknowledgments(version.acknowledged)
        for acknowledgment in self._current:
            if acknowledgment in self._applied:
                continue
            applied = None if self._checkpoint is None else self._checkpoint.acknowledgments.get(acknowledgment)
            if applied is not None:
                self._applied[acknowledgment] = applied
                continue
            until = self._applies_until(acknowledgment, None if state is None else state.reported_at, first=first)
            self._applied[acknowledgment] = min(until, self._clock())
            if until != _NEVER:
                self._acknowledge(replace(acknowledgment, until=until))

    def _applies_until(self, acknowledgment: FaultAcknowledgment, reported_at: float | None, *, first: bool) -> float:
        until = acknowledgment.until
        if first and until > self._clock():
            log.warning("ignoring acknowledgment with a time in the future", until=until)
            return _NEVER
        return until if reported_at is None else min(until, reported_at)

    def _restore_status(self, version: TelemetryObject) -> SavedState | None:
        """Restores what the status adds to the checkpoint; returns both merged."""
        status = self._status = read_status(version.status, self._boot_id, self._unreadable)
        checkpoint = self._checkpoint
        if checkpoint is None or status is None:
            if status is not None:
                self._restore(status)
            return status if checkpoint is None else checkpoint.state
        newer = is_status_newer(status, checkpoint)
        relevant = status if newer else without_acknowledged_losses(status, checkpoint)
        merged = merge(checkpoint.state, relevant, status_is_newer=newer)
        self._restore(changes_since(merged, checkpoint.state))
        return merged
