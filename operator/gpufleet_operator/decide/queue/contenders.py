"""Selects the waiting workloads that get earmarked devices, and those that may preempt others.

Both depend only on priority, age and name, so that neither use nor chance changes the choice from pass to pass.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from gpufleet_api.condition import ConditionStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.queue.order import Precedence, precedence, priority_of
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_operator.placement.model import Request

MAX_PREEMPTORS = 8
"""Maximum number of workloads for which pods are evicted at the same time."""


MAX_HEADS = 4
"""Maximum number of workloads that are tried for an earmark: one that never fits does not block the next ones."""


@dataclass(frozen=True, slots=True)
class QueuedWorkload:
    """A workload that waits for devices."""

    uid: str
    precedence: Precedence
    priority: int
    waits_since: datetime | None
    """When it began to wait: it was created or resumed, or lost its devices; None: its status does not have it yet."""
    needs_several: bool
    """It needs several devices together, so a single freed device is not enough."""
    preempts: bool
    has_evicted: bool = False
    """Pods were evicted for it."""

    @classmethod
    def of(cls, assessed: WorkloadReplicas, state: PassState) -> "QueuedWorkload":
        spec = assessed.spec
        several = spec.placement.gang or (spec.devices.count > 1 and not spec.adopts)
        workload = assessed.workload
        return cls(
            workload.uid,
            precedence(assessed),
            priority_of(assessed),
            _waits_since(workload) if several else workload.created,
            several,
            preempts(assessed.replicas),
            workload.uid in state.preempting,
        )

    @classmethod
    def of_request(cls, workload: Workload, request: Request, state: PassState) -> "QueuedWorkload":
        """Returns a workload by the request that an earlier pass made for it."""
        order = (-request.priority, workload.created, workload.full_name)
        several = request.gang or request.devices.count > 1
        evicted = workload.uid in state.preempting
        since = _waits_since(workload) if several else workload.created
        return cls(workload.uid, order, request.priority, since, several, request.may_preempt, evicted)


@dataclass(frozen=True, slots=True)
class Contenders:
    """The workloads for which devices may be kept."""

    heads: tuple[str, ...] = ()
    """Uids of the workloads of which the first that could fit gets earmarked devices, in order."""
    preemptors: frozenset[str] = frozenset()
    """Uids of the workloads for which pods may be evicted."""

    @property
    def all(self) -> frozenset[str]:
        return self.preemptors | frozenset(self.heads)


def preempts(replicas: Iterable[Replica]) -> bool:
    """Returns False when the class of a pod has `preemptionPolicy: Never`."""
    return all(r.pod.preempts for r in replicas if r.pod is not None)


def choose(
    waiting: Iterable[QueuedWorkload],
    limits: Limits,
    now: datetime,
    *,
    lowest: Callable[[], int | None],
    is_valid: Callable[[str], bool],
) -> Contenders:
    """Returns the contenders.

    Args:
        waiting: All workloads that wait.
        limits: The settings.
        now: Time of the pass.
        lowest: Returns the lowest priority of pods that may be evicted or are ending; None: there is no such pod.
        is_valid: Returns False for the uid of a workload whose request contradicts itself.
    """
    everything = tuple(waiting)
    low = lowest() if limits.preemption and any(one.preempts for one in everything) else None

    def may_be_head(one: QueuedWorkload) -> bool:
        return one.needs_several and (moment := reserved_from(one, limits)) is not None and moment <= now

    def may_preempt(one: QueuedWorkload) -> bool:
        return low is not None and one.preempts and (one.has_evicted or one.priority > low)

    heads: list[str] = []
    preemptors: list[str] = []
    candidates = (one for one in everything if may_be_head(one) or may_preempt(one))
    for one in sorted(candidates, key=lambda one: one.precedence):
        is_head = len(heads) < MAX_HEADS and may_be_head(one)
        preempting = len(preemptors) < MAX_PREEMPTORS and may_preempt(one)
        if (is_head or preempting) and is_valid(one.uid):
            heads += [one.uid] if is_head else []
            preemptors += [one.uid] if preempting else []
    return Contenders(tuple(heads), frozenset(preemptors))


def reserved_from(one: QueuedWorkload, limits: Limits) -> datetime | None:
    """Returns when a workload has waited long enough for devices to be earmarked; None: its status is not written."""
    return None if one.waits_since is None else one.waits_since + limits.reserve_after


def _waits_since(workload: Workload) -> datetime | None:
    """Returns when a workload began to wait: it may be older, and have had its devices or been suspended until then.

    `Complete` is False since the first status, which may be late. A condition that is False for longer never changed.
    """
    conditions = {one.type: one for one in workload.status.conditions} if workload.status is not None else {}
    changed = [workload.created]
    first = _moment(conditions["Complete"].last_transition_time) if "Complete" in conditions else workload.created
    for kind in ("Placed", "Suspended"):
        condition = conditions.get(kind)
        if condition is None:
            continue
        if condition.status is ConditionStatus.TRUE:
            return None
        since = _moment(condition.last_transition_time)
        if since > first:
            changed.append(since)
    return max(changed)


@lru_cache(maxsize=4096)
def _moment(text: str) -> datetime:
    return timestamps.parse(text)
