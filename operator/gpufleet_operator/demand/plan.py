"""Decides which GPUDemands are written and deleted."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpufleet_api.demand.gpu_demand import DemandStatus, RunState
from gpufleet_common import timestamps
from gpufleet_operator.demand.observe import ObservedRun, RunKey
from gpufleet_operator.demand.runs import PodEnds, next_status
from gpufleet_operator.model.demands.gpu_demand import Demand, OwnerReference
from gpufleet_operator.model.demands.template import TemplateKey

EXPIRY = timedelta(days=30)
"""Time without a run after which a GPUDemand is deleted."""
MAX_TEMPLATES = 200
"""GPUDemands of a namespace. The one without a run for the longest time is deleted for a new one."""
_MAX_OWNERS = 8


@dataclass(frozen=True, slots=True)
class WriteDemand:
    """Create or change a GPUDemand."""

    key: TemplateKey
    status: DemandStatus
    stored: Demand | None = None
    """Version of the object that the write is based on; None: it is created."""
    owners: tuple[OwnerReference, ...] = ()

    @property
    def owners_change(self) -> bool:
        """True when the object itself is written, and not only its status."""
        return self.stored is None or self.stored.owners != self.owners


@dataclass(frozen=True, slots=True)
class DeleteDemand:
    """Delete a GPUDemand."""

    stored: Demand


def plan_writes(
    demands: Iterable[Demand],
    observed: Mapping[RunKey, ObservedRun],
    pods: PodEnds,
    *,
    now: datetime,
    minimum: timedelta,
) -> list[WriteDemand | DeleteDemand]:
    """Returns the writes, at most one for each object.

    Args:
        demands: As stored.
        observed: Observations of each run so far.
        pods: The pods that have ended.
        now: Time of the writes.
        minimum: How long a run must be observed to count.
    """
    by_key = {demand.key: demand for demand in demands if not demand.deleting and demand.name == demand.key.name}
    of_template: dict[TemplateKey, dict[str, ObservedRun]] = defaultdict(dict)
    for (key, uid), run in observed.items():
        of_template[key][uid] = run
    found: list[WriteDemand | DeleteDemand] = []
    free = _FreeEntries(by_key.values(), of_template)
    for key in sorted({*by_key, *of_template}):
        stored, seen = by_key.get(key), of_template.get(key, {})
        if stored is not None and not seen and not _is_active(stored):  # most of them, most of the time
            if _is_expired(stored, now):
                found.append(DeleteDemand(stored))
            continue
        status = next_status(None if stored is None else stored.status, seen, pods, now=now, minimum=minimum)
        if status is not None and (stored is not None or status.runs):
            evicted = free.take(key.namespace) if stored is None else None
            if evicted is not None:
                found.append(DeleteDemand(evicted))
            if stored is not None or evicted is not None or free.has_room(key.namespace):
                found.append(WriteDemand(key, status, stored, _owners(stored, seen.values())))
    return found


class _FreeEntries:
    """Counts how many more GPUDemands each namespace may have."""

    def __init__(self, demands: Iterable[Demand], running: Collection[TemplateKey]) -> None:
        self._idle: dict[str, list[Demand]] = defaultdict(list)
        self._number: dict[str, int] = defaultdict(int)
        for demand in sorted(demands, key=_last_written, reverse=True):
            self._number[demand.namespace] += 1
            if not _is_active(demand) and demand.key not in running:
                self._idle[demand.namespace].append(demand)

    def has_room(self, namespace: str) -> bool:
        return self._number[namespace] <= MAX_TEMPLATES

    def take(self, namespace: str) -> Demand | None:
        """Counts one more, and returns the one to delete for it; None: there is room, or all of them have runs."""
        self._number[namespace] += 1
        if self.has_room(namespace) or not self._idle[namespace]:
            return None
        self._number[namespace] -= 1
        return self._idle[namespace].pop()


def _last_written(demand: Demand) -> str:
    return demand.status.observed_at if demand.status is not None else ""


def _is_active(demand: Demand) -> bool:
    return demand.status is not None and any(run.state is not RunState.ENDED for run in demand.status.runs)


def _is_expired(demand: Demand, now: datetime) -> bool:
    """Returns True when an object without active runs is deleted. One whose status was never written has none."""
    status = demand.status
    return status is None or now - timestamps.parse(status.observed_at) >= EXPIRY


def _owners(stored: Demand | None, seen: Iterable[ObservedRun]) -> tuple[OwnerReference, ...]:
    """Returns the owners of the latest runs.

    A Deployment has one ReplicaSet after another, and all of them are deleted with it.
    """
    known = () if stored is None else stored.owners
    added = {run.owner for run in seen if run.owner is not None} - set(known)
    return (*known, *sorted(added, key=lambda owner: (owner.name, owner.uid)))[-_MAX_OWNERS:]
