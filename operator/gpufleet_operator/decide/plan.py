"""Picks devices for everything that waits: the ledger as it will stand after this pass.

In order of priority, then age; each pick is debited before the next request is looked at. A gang is placed as a whole.
While none of its pods has been released, reservations of an incomplete gang are void: they are dropped and the gang is
picked anew, which is also how a gang that was reserved on one node and lost the race on another takes back what it
wrote, at once or after a crash.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet_api.telemetry import Assignment
from gpufleet_api.workload import PlacementState, Requirements
from gpufleet_common import timestamps
from gpufleet_operator.decide.shards import Range, assigned_ranges, divide
from gpufleet_operator.fleet.build import BuiltFleet, build
from gpufleet_operator.fleet.engine_input import request, share
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import reserve_key
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import DeviceState, Diagnosis, Pick, Request, Terms
from gpufleet_operator.pods.validate import device_container

ReplicaKey = tuple[str, int]
"""Workload uid, replica."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A reservation made in this pass, and why these devices."""

    entry: Reservation
    terms: Terms


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome for all workloads."""

    ledger: Ledger
    """What is to stand in the nodes' objects."""
    picked: Mapping[ReplicaKey, Picked] = field(default_factory=dict)
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid."""
    inconsistencies: tuple[str, ...] = ()


def plan(snapshot: Snapshot, ledger: Ledger, standings: Sequence[WorkloadReplicas]) -> Plan:
    """Pick for all workloads; `standings` in any order."""
    ledger = _without(ledger, {r.pod.uid for s in standings for r in stale_reservations(s) if r.pod is not None})
    ledger = _with(ledger, [r.entry for s in standings for r in s.replicas if r.recovered and r.entry is not None])
    waiting = [s for s in sorted(standings, key=_precedence) if _open(s)]
    if not waiting:
        return Plan(ledger)
    planner = _Planner(snapshot, build(snapshot, ledger), ledger)
    for standing in waiting:
        planner.workload(standing, _open(standing))
    added = [p.entry for p in planner.picked.values()]
    return Plan(_with(ledger, added), planner.picked, planner.unplaced, planner.built.inconsistencies)


def stale_reservations(standing: WorkloadReplicas) -> tuple[Replica, ...]:
    """Gated replicas whose reservation doesn't stand: not usable any more, or part of an incomplete gang."""
    reserved = [r for r in standing.replicas if r.entry is not None and r.gated]
    if standing.spec.placement.gang and _incomplete(standing) and not _started(standing):
        return tuple(reserved)
    return tuple(r for r in reserved if r.wait is not WaitReason.NOTHING)


def _incomplete(standing: WorkloadReplicas) -> bool:
    return any(r.wait is not WaitReason.NOTHING for r in standing.replicas)


def _started(standing: WorkloadReplicas) -> bool:
    """True when some replica of a gang was let go already."""
    return any(r.pod is not None and not r.gated for r in standing.replicas) or any(
        r.state is PlacementState.SUCCEEDED for r in standing.replicas
    )


def _open(standing: WorkloadReplicas) -> tuple[Replica, ...]:
    """Replicas to pick for now. A gang waits until each of its pods could be released."""
    voided = {r.index for r in stale_reservations(standing)}
    gang = standing.spec.placement.gang
    if gang and any(r.wait in (WaitReason.POD, WaitReason.GATES) for r in standing.replicas):
        return ()
    candidates = (r for r in standing.replicas if r.wait is not WaitReason.GATES)
    return tuple(r for r in candidates if r.wait is WaitReason.DEVICES or r.index in voided)


def _precedence(standing: WorkloadReplicas) -> tuple[object, ...]:
    """Pod priority (as admission resolved it), then age, then name."""
    priority = max((r.pod.priority for r in standing.replicas if r.pod is not None), default=0)
    return (-priority, standing.workload.created, standing.workload.full_name)


class _Planner:
    def __init__(self, snapshot: Snapshot, built: BuiltFleet, ledger: Ledger) -> None:
        self.snapshot = snapshot
        self.built = built
        self.ledger = ledger
        self.picked: dict[ReplicaKey, Picked] = {}
        self.unplaced: dict[str, Diagnosis] = {}

    @property
    def fleet(self) -> Fleet:
        return self.built.fleet

    def workload(self, standing: WorkloadReplicas, replicas: tuple[Replica, ...]) -> None:
        """Place the open replicas of one workload and debit them."""
        workload = standing.workload
        total = sum(len(n.devices) for n in self.fleet.nodes.values())
        try:
            decision = place(self.fleet, self._request(standing, replicas), self.snapshot.mix)
            ranges = self._ranges(standing, decision.picks)
        except PlacementError as error:
            self.unplaced[workload.uid] = Diagnosis(str(error), total, 0)
            return
        if decision.diagnosis is not None:
            self.unplaced[workload.uid] = decision.diagnosis
        by_index = {r.index: r for r in replicas}
        for pick in decision.picks:
            replica = by_index[pick.replica]
            if replica.pod is None:
                continue
            entry = self._entry(standing, replica, pick, ranges.get(pick.replica))
            self.picked[workload.uid, pick.replica] = Picked(entry, pick.terms)
            self.fleet.hold(pick.node, pick.devices, replica.pod.needs, share(standing.spec.devices))

    def _request(self, standing: WorkloadReplicas, replicas: tuple[Replica, ...]) -> Request:
        workload, model = standing.workload, standing.workload.model
        if model is None:
            raise TypeError(f"{workload.full_name} has no model")  # a standing is only made of a workload that parses
        now, refusals = self.snapshot.now, self.snapshot.memory.refusals
        aside = {
            r.index: frozenset(
                node
                for (uid, index, node), setback in refusals.items()
                if uid == workload.uid and index == r.index and now < setback.until
            )
            for r in replicas
        }
        # A node whose object could not be written a moment ago can't be reserved on: somebody else's turn, and a gang
        # must not hold its other nodes meanwhile.
        unwritable = frozenset(
            name
            for name in self.snapshot.telemetry
            if self.snapshot.memory.blocked(reserve_key(name), self.snapshot.now)
        )
        open_ones = {r.index for r in replicas}
        kept = [r for r in standing.replicas if r.entry is not None and r.index not in open_ones]
        asked = request(
            model,
            replicas=tuple(r.index for r in replicas),
            resources=self.snapshot.limits.resources,
            excluded_nodes={index: nodes | unwritable for index, nodes in aside.items()},
            placed_replicas=Counter(r.entry.node for r in kept if r.entry is not None),
        )
        # What admission made of the pod (LimitRanges, defaults) counts, not what the template says; and our own
        # resource counts as well, because kube-scheduler will compare it with the node's allocatable.
        needs = next(r.pod.needs for r in replicas if r.pod is not None)
        labels = (model.spec.requirements or Requirements()).node_selector
        return replace(asked, pod=replace(needs, node_selector={**needs.node_selector, **labels}))

    def _ranges(self, standing: WorkloadReplicas, picks: Iterable[Pick]) -> dict[int, Range]:
        picked = {p.replica: self._devices(p) for p in picks}
        if not picked:
            return {}
        return divide(standing.workload, standing.spec, assigned_ranges(standing.workload, self.ledger), picked)

    def _devices(self, pick: Pick) -> list[DeviceState]:
        return [d for d in self.fleet.nodes[pick.node].devices if d.uuid in pick.devices]

    def _entry(self, standing: WorkloadReplicas, replica: Replica, pick: Pick, items: Range | None) -> Reservation:
        if replica.pod is None:
            raise TypeError(f"replica {replica.index} has no pod")  # only replicas with a gated pod are open
        assignment = Assignment(
            pod_uid=replica.pod.uid,
            namespace=replica.pod.namespace,
            pod=replica.pod.name,
            container=device_container(standing.spec),
            workload=standing.workload.name,
            workload_uid=standing.workload.uid,
            replica=replica.index,
            replicas=standing.spec.replicas,
            resource=self.snapshot.limits.resources.asked(standing.spec.devices),
            devices=list(pick.devices),
            memory_mib=standing.spec.devices.memory_mib,
            compute_percent=standing.spec.devices.compute_percent,
            shard_start=items[0] if items else None,
            shard_end=items[1] if items else None,
            decided_at=timestamps.micros(self.snapshot.now),
        )
        return Reservation(pick.node, assignment)


def _without(ledger: Ledger, pod_uids: set[str]) -> Ledger:
    """Reservations of gated pods can be dropped at once: the kubelet never saw the pods."""
    dropped = tuple(e for uid, e in ledger.live.items() if uid in pod_uids)
    live = {uid: e for uid, e in ledger.live.items() if uid not in pod_uids}
    return replace(ledger, live=live, free=(*ledger.free, *dropped))


def _with(ledger: Ledger, added: Sequence[Reservation]) -> Ledger:
    return replace(ledger, live={**ledger.live, **{e.assignment.pod_uid: e for e in added}}) if added else ledger
