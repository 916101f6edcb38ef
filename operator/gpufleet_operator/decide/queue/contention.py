"""Earmarks devices, and selects pods to evict, for the first workloads that do not fit.

The cluster stores only since when devices are earmarked. Each pass finds the devices again: a node on which devices are
kept has the fewest in use, so it stays the first choice; a pod that is being evicted counts as gone, so no other pod is
evicted instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gpufleet_api.workload import WorkloadSpec
from gpufleet_common import timestamps
from gpufleet_operator.decide.queue.contenders import Contenders
from gpufleet_operator.model.actions import EvictPod, WorkloadName, unevictable_pods
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.replica import RemovalReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState, Preempting
from gpufleet_operator.placement import Fleet, propose
from gpufleet_operator.placement.contention.holder_table import holder_table
from gpufleet_operator.placement.contention.preempt import PreemptionProposal
from gpufleet_operator.placement.contention.soonest import soonest
from gpufleet_operator.placement.contention.victims import Victim
from gpufleet_operator.placement.explain.diagnosis import quantity
from gpufleet_operator.placement.model import Diagnosis, FilterReason, Pick, Request

SETTLING_TIME = timedelta(seconds=10)
"""Time after the last eviction in which no other pods are chosen: the report of a freed device may be late."""

_MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class Earmark:
    """Devices that are earmarked for a workload."""

    since: datetime
    devices: dict[str, tuple[str, ...]]
    """By node."""
    in_use: int
    """Number of them that pods hold."""
    free_at: datetime | None = None
    """When they are free at the latest; None: not known."""

    @property
    def number(self) -> int:
        return sum(map(len, self.devices.values()))


class Contention:
    """Keeps devices on the fleet of one pass. Workloads are asked in the order of the queue.

    Args:
        snapshot: The cluster.
        state: Of this pass.
        fleet: The fleet that workloads are placed on, without earmarks.
        contenders: The workloads that devices may be earmarked for.
    """

    def __init__(self, snapshot: Snapshot, state: PassState, fleet: Fleet, contenders: Contenders) -> None:
        self._snapshot, self._state, self._fleet, self._contenders = snapshot, state, fleet, contenders
        self._now = snapshot.now.timestamp()
        self._has_head = False
        self.earmarks: dict[str, Earmark] = {}
        """By workload uid."""
        self.evictions: list[EvictPod] = []
        self.preempting: dict[str, Preempting] = {}
        """As `PassState.preempting`."""
        self.moments: dict[str, datetime] = {}
        """Workload UID -> when its earmarks or evictions change without a change of the cluster."""

    def keep(self, assessed: WorkloadReplicas, requested: Request, diagnosis: Diagnosis) -> Diagnosis:
        """Earmarks devices for a workload that did not fit, if it is a contender. Returns the diagnosis to report.

        Args:
            assessed: The workload.
            requested: Its replicas that did not fit.
            diagnosis: Why they did not.
        """
        uid, sentences = assessed.workload.uid, self._of_others(diagnosis)
        proposal = None
        if uid in self._contenders.preemptors:
            blocked = unevictable_pods(self._state, self._snapshot.now)
            proposal = propose(self._fleet, requested, self._snapshot.mix, now=self._now, blocked=blocked)
            if proposal is None:
                self._note_protected(uid, requested.priority)
            else:
                sentences += self._preempt(assessed.workload, requested, proposal)
        if proposal is None and uid in self._contenders.heads and not self._has_head:
            sentences += self._earmark_soonest(assessed, requested)
        return replace(diagnosis, message=" ".join((diagnosis.message, *sentences)))

    @contextmanager
    def lent(self, spec: WorkloadSpec, started: datetime | None, grace: timedelta) -> Iterator[None]:
        """Lends earmarked devices to a workload that will have ended before they are needed.

        Args:
            spec: Of the workload.
            started: Since when its `activeDeadlineSeconds` count; None: it starts now.
            grace: For which its pods may run after their deadline.
        """
        seconds = spec.run_policy.active_deadline_seconds
        if seconds is None or not self.earmarks:
            yield
            return
        end = (started or self._snapshot.now) + timedelta(seconds=seconds) + grace
        kept = self._fleet.clear_earmarks()
        lendable = {
            uuid
            for earmark in self.earmarks.values()
            if earmark.free_at is not None and end <= earmark.free_at
            for uuids in earmark.devices.values()
            for uuid in uuids
        }
        for uuid, message in kept.items():
            if uuid not in lendable:
                self._fleet.earmark((uuid,), message)
        try:
            yield
        finally:
            for uuid in sorted(lendable & kept.keys()):
                self._fleet.earmark((uuid,), kept[uuid])

    def _of_others(self, diagnosis: Diagnosis) -> list[str]:
        """Returns the workloads that hold earmarks of devices which this workload could use."""
        number = next((r.devices for r in diagnosis.rejected if r.reason is FilterReason.EARMARKED), 0)
        if not number:
            return []
        names = list(dict.fromkeys(self._fleet.earmarks.values()))
        verb = "is" if number == 1 else "are"
        return [f"{quantity(number, 'free GPU')} {verb} earmarked for {_listed(names)}."]

    def _earmark_soonest(self, assessed: WorkloadReplicas, requested: Request) -> list[str]:
        if not requested.gang:
            requested = replace(requested, replicas=requested.replicas[:1])
        found = soonest(self._fleet, requested, self._snapshot.mix)
        if found is None:
            return ["No GPUs are earmarked: it would not fit if all pods of GPUWorkloads ended."]
        self._has_head = True
        free_at = None if found.free_at is None else datetime.fromtimestamp(found.free_at, UTC)
        return self._earmark(assessed.workload, dict(found.devices), found.in_use, free_at)

    def _earmark(
        self, workload: Workload, devices: dict[str, tuple[str, ...]], in_use: int, free_at: datetime | None = None
    ) -> list[str]:
        earmark = Earmark(_since(workload, self._snapshot.now), devices, in_use, free_at)
        self.earmarks[workload.uid] = earmark
        since = timestamps.seconds(earmark.since)
        for uuids in devices.values():
            self._fleet.earmark(uuids, f"{workload.full_name} since {since}")
        number = quantity(earmark.number, "GPU")
        verb = "is" if earmark.number == 1 else "are"
        where = _listed(sorted(devices))
        return [f"{number} {verb} earmarked for this workload since {since} on {where}, {in_use} in use."]

    def _preempt(self, workload: Workload, requested: Request, proposal: PreemptionProposal) -> list[str]:
        uids = frozenset(victim.holder.uid for victim in proposal.victims)
        previous, now = self._state.preempting.get(workload.uid), self._snapshot.now
        if previous is not None and not uids <= previous.victims and now < previous.at + SETTLING_TIME:
            self.preempting[workload.uid] = previous
            self.moments[workload.uid] = previous.at + SETTLING_TIME
            return self._earmark_free(workload, proposal.picks)
        victims = uids or (previous.victims if previous is not None else frozenset())
        self.preempting[workload.uid] = Preempting(victims, now)
        evictions = [self._eviction(workload, requested.priority, victim) for victim in proposal.victims]
        # A reservation that is written again in this pass is not stored yet: its pod is evicted with the others later.
        self.evictions += [found for found in evictions if found is not None] if None not in evictions else []
        return [*self._earmark_free(workload, proposal.picks), *_preemption(proposal.victims)]

    def _earmark_free(self, workload: Workload, picks: Sequence[Pick]) -> list[str]:
        devices: dict[str, tuple[str, ...]] = {}
        for pick in picks:
            devices[pick.node] = tuple(dict.fromkeys((*devices.get(pick.node, ()), *pick.devices)))
        ends, where = holder_table(self._fleet).ends, self._fleet.where
        in_use = sum(bool(ends[where[uuid]] != 0) for uuids in devices.values() for uuid in uuids)
        return self._earmark(workload, devices, in_use)

    def _eviction(self, workload: Workload, priority: int, victim: Victim) -> EvictPod | None:
        pod = self._snapshot.pods[victim.holder.uid]
        stored = self._snapshot.telemetry[victim.node].assignments
        reservation = next((a for a in stored if a.pod_uid == victim.holder.uid), None)
        if reservation is None:
            return None
        return EvictPod(
            reservation.workload_uid,
            reservation.workload,
            pod.namespace,
            pod.name,
            pod.uid,
            f"preempted by GPUWorkload {workload.full_name} (priority {priority}; pod: {victim.holder.priority})",
            RemovalReason.PREEMPTED,
            WorkloadName(workload.namespace, workload.name, workload.uid),
        )

    def _note_protected(self, uid: str, priority: int) -> None:
        table = holder_table(self._fleet)
        ends = table.protected[(table.priority < priority) & (table.protected > self._now)]
        if ends.size:
            self.moments[uid] = datetime.fromtimestamp(float(ends.min()), UTC)


def _since(workload: Workload, now: datetime) -> datetime:
    """Returns since when devices are earmarked for a workload, by its stored status."""
    explanation = workload.status.explanation if workload.status is not None else None
    stored = explanation.earmark if explanation is not None else None
    return timestamps.parse(stored.since) if stored is not None else now.replace(microsecond=0)


def _preemption(victims: Sequence[Victim]) -> list[str]:
    if not victims:
        return []
    names = [victim.holder.name for victim in victims]
    return [f"Preempting {quantity(len(names), 'pod')} of lower priority: {_listed(names)}."]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"
