"""Computes the memory of a shared device that each of its holders counts with.

A holder counts with its promise, or with its observed use if that is more. If its workload lets others have what it
does not use (`reclaim: Used`), it counts with the most that it used in the last ten minutes, once it was observed for
that long. With `demand: Learned`, what earlier runs used takes the place of the promise.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gpufleet_api.telemetry.device import DeviceHolder
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.model.demands.promise import is_reclaimable, placed_mib

RECLAIM_AFTER = timedelta(minutes=10)
"""The agent's window, see `gpufleet_agent.overuse.memory_windows`."""


@dataclass(frozen=True, slots=True)
class ObservationTime:
    """Time since which holders must be observed before their unused memory is reclaimed.

    Args:
        observed_at: When the agent wrote its report, by the node's clock.
        minimum: How long a holder must have been observed by then.
    """

    observed_at: datetime
    minimum: timedelta

    def is_over(self, holder: DeviceHolder) -> bool:
        """Returns True when the agent has observed the container for long enough."""
        since = holder.observed_since
        return since is not None and self.observed_at - timestamps.parse(since) >= self.minimum


def counted_memory_mib(
    promise: Assignment | DeviceHolder, holder: DeviceHolder | None, observation: ObservationTime
) -> int:
    """Returns the MiB that a holder counts with.

    Args:
        promise: Its reservation, or, without one, the holder itself.
        holder: As the agent reports it; None: it is not reported.
        observation: How long holders must be observed.
    """
    promised = placed_mib(promise)
    used = None if holder is None else most_used_mib(holder)
    if holder is None or used is None:
        return promised
    reclaimable = isinstance(promise, Assignment) and is_reclaimable(promise)
    return used if reclaimable and observation.is_over(holder) else max(promised, used)


def most_used_mib(holder: DeviceHolder) -> int | None:
    """Returns the most memory that the container used within the agent's window; None: unknown."""
    known = [mib for mib in (holder.memory_used_mib, holder.memory_used_max_mib) if mib is not None]
    return max(known, default=None)
