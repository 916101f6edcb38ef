"""Picks devices for the replicas that wait for them, and returns the ledger as it is after this pass.

Workloads are placed by priority, then by age, and each pick is deducted before the next request. A gang is placed as a
whole. As long as none of its pods is released, the reservations of an incomplete gang are stale: they are dropped, and
the gang is placed again. In the same way the reservations that were written to one node are removed when the write to
another node lost a race, immediately or after a crash.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.adoption.requests import alike_replicas, common_pod, namesake_nodes, with_reasons
from gpufleet_operator.decide.adoption.settled_nodes import unsettled_nodes
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.decide.shards import Range, assigned_ranges, divide
from gpufleet_operator.fleet.build import BuiltFleet, build
from gpufleet_operator.fleet.engine_input import request, share
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.kept import ReplicaKey
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import unwritable_nodes
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.replica import WITHOUT_USABLE_POD, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import DeviceState, Diagnosis, Pick, Request, Terms


@dataclass(frozen=True, slots=True)
class PickedDevices:
    """A reservation that this pass makes, and the score of its devices."""

    reservation: Reservation
    terms: Terms


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome for all workloads."""

    ledger: Ledger
    """As it is after this pass."""
    picked: Mapping[ReplicaKey, PickedDevices] = field(default_factory=dict)
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid."""
    inconsistencies: tuple[str, ...] = ()


class FleetSource:
    """Where a pass gets the fleet from. This one builds it from the snapshot if a workload waits."""

    def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
        """Returns the fleet before this pass places anything; of no interest unless a workload waits."""
        return build(snapshot, ledger) if waiting else BuiltFleet(Fleet())

    def pods(self, snapshot: Snapshot, ledger: Ledger) -> PlacedPods:
        """Returns the pods that may restrict where others run."""
        return PlacedPods.of(snapshot, ledger)

    def asked(self, workload_uid: str, request: Request | None, *, placed: bool) -> None:
        """Called with each request, and whether all of its replicas got devices. None: there is no valid request."""

    def finish(self, picked: Collection[str]) -> None:
        """Called with the names of the nodes on which devices were picked."""


def place_waiting(
    snapshot: Snapshot, state: PassState, ledger: Ledger, assessed: Sequence[WorkloadReplicas], source: FleetSource
) -> Plan:
    """Places all workloads; their order in `assessed` does not matter."""
    stale = {r.pod.uid for a in assessed for r in stale_reservations(a) if r.pod is not None}
    recovered = [r.reservation for a in assessed for r in a.replicas if r.recovered and r.reservation is not None]
    ledger = _with(_without(ledger, stale), recovered)
    waiting = [a for a in sorted(assessed, key=precedence) if _unplaced(a)]
    built = source.fleet(snapshot, ledger, waiting=bool(waiting))
    if not waiting:
        return Plan(ledger)
    planner = _Planner(snapshot, state, built, ledger, source)
    for workload in waiting:
        planner.place_workload(workload, _unplaced(workload))
    source.finish({p.reservation.node for p in planner.picked.values()})
    added = [p.reservation for p in planner.picked.values()]
    return Plan(_with(ledger, added), planner.picked, planner.unplaced, planner.built.inconsistencies)


def stale_reservations(assessed: WorkloadReplicas) -> tuple[Replica, ...]:
    """Returns gated replicas whose reservation is no longer usable or part of an incomplete gang."""
    reserved = [r for r in assessed.replicas if r.reservation is not None and r.gated]
    if assessed.spec.placement.gang and _is_incomplete(assessed) and not has_started(assessed):
        return tuple(reserved)
    return tuple(r for r in reserved if r.wait_reason is not WaitReason.NOTHING)


def _is_incomplete(assessed: WorkloadReplicas) -> bool:
    has_devices = (WaitReason.NOTHING, WaitReason.PREDECESSOR)
    return any(r.wait_reason not in has_devices for r in assessed.replicas)


def has_started(assessed: WorkloadReplicas) -> bool:
    """Returns True when a replica of a gang was released already."""
    return any(r.pod is not None and not r.gated for r in assessed.replicas) or any(
        r.state is PlacementState.SUCCEEDED for r in assessed.replicas
    )


def _unplaced(assessed: WorkloadReplicas) -> tuple[Replica, ...]:
    """Returns the replicas to place. A gang waits until each of its pods can be released."""
    stale = {r.index for r in stale_reservations(assessed)}
    gang = assessed.spec.placement.gang
    if gang and any(r.wait_reason in WITHOUT_USABLE_POD for r in assessed.replicas):
        return ()
    candidates = (r for r in assessed.replicas if r.wait_reason not in (WaitReason.OTHER_GATES, WaitReason.RESUME))
    return tuple(r for r in candidates if r.wait_reason is WaitReason.DEVICES or r.index in stale)


def precedence(assessed: WorkloadReplicas) -> tuple[object, ...]:
    """Sorts by pod priority (as resolved at admission), then age, then name."""
    priority = max((r.pod.priority for r in assessed.replicas if r.pod is not None), default=0)
    return (-priority, assessed.workload.created, assessed.workload.full_name)


class _Planner:
    def __init__(
        self, snapshot: Snapshot, state: PassState, built: BuiltFleet, ledger: Ledger, source: FleetSource
    ) -> None:
        self.snapshot = snapshot
        self.state = state
        self.built = built
        self.ledger = ledger
        self.source = source
        self.pods = source.pods(snapshot, ledger)
        self.unwritable = unwritable_nodes(state.write_backoffs, snapshot.now)
        self.picked: dict[ReplicaKey, PickedDevices] = {}
        self.unplaced: dict[str, Diagnosis] = {}

    @property
    def fleet(self) -> Fleet:
        return self.built.fleet

    def place_workload(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...]) -> None:
        """Places the given replicas of one workload, and deducts their devices from the fleet."""
        groups = alike_replicas(assessed, replicas)
        for alike in groups:
            self._place(assessed, alike, alone=len(groups) == 1)

    def _place(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...], *, alone: bool) -> None:
        workload = assessed.workload
        unsettled = unsettled_nodes(self.snapshot, replicas) if assessed.spec.adopts else {}
        try:
            requested = self._request(assessed, replicas, frozenset(unsettled))
            decision = place(self.fleet, requested, self.snapshot.mix)
            ranges = self._ranges(assessed, decision.picks)
        except PlacementError as error:
            self.source.asked(workload.uid, None, placed=False)
            self.unplaced[workload.uid] = Diagnosis(str(error), len(self.fleet.where), 0)
            return
        # A workload with several requests is asked again after each change, and one that could not use a node because
        # its writes are backing off as well: that such a backoff ends is no change of the node.
        once = requested if alone and not self.unwritable else None
        self.source.asked(workload.uid, once, placed=decision.diagnosis is None)
        if decision.diagnosis is not None:
            self.unplaced[workload.uid] = with_reasons(decision.diagnosis, unsettled.values())
        by_index = {r.index: r for r in replicas}
        for pick in decision.picks:
            pod = by_index[pick.replica].pod
            if pod is None:
                continue
            assignment = new_assignment(
                self.snapshot, workload, pick.replica, pod, devices=pick.devices, shard=ranges.get(pick.replica)
            )
            self.picked[workload.uid, pick.replica] = PickedDevices(Reservation(pick.node, assignment), pick.terms)
            self.fleet.hold(pick.node, pick.devices, pod.needs, share(assessed.spec.devices))
            self.pods.add(pick.node, pod.traits)

    def _request(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...], unsettled: frozenset[str]) -> Request:
        workload, model = assessed.workload, assessed.workload.model
        if model is None:
            raise TypeError(f"{workload.full_name} has no model")  # only workloads that parse are assessed
        unplaced = {r.index for r in replicas}
        kept = [r.reservation for r in assessed.replicas if r.reservation is not None and r.index not in unplaced]
        requested = request(
            model,
            replicas=tuple(r.index for r in replicas),
            resources=self.snapshot.limits.resources,
            excluded_nodes=self._excluded_nodes(workload.uid, replicas, unsettled),
            placed_replicas=Counter(reservation.node for reservation in kept),
        )
        pod = common_pod([r.pod for r in replicas if r.pod is not None])
        return self.pods.restrict(requested, model.spec.requirements, pod)

    def _excluded_nodes(
        self, workload_uid: str, replicas: Sequence[Replica], unsettled: frozenset[str]
    ) -> dict[int, frozenset[str]]:
        """Returns per replica the nodes that rejected it, and those whose last write failed.

        A node that could not be written is skipped, so that another node is taken, and a gang does not hold its other
        nodes while it waits.
        """
        rejected = excluded_nodes(self.snapshot, self.state, workload_uid, (r.index for r in replicas))
        namesakes = namesake_nodes(self.ledger, replicas)
        always = self.unwritable | unsettled
        excluded = {index: always | nodes | namesakes.get(index, frozenset()) for index, nodes in rejected.items()}
        # Without an entry the engine can use its memo of explanations.
        return {index: nodes for index, nodes in excluded.items() if nodes}

    def _ranges(self, assessed: WorkloadReplicas, picks: Iterable[Pick]) -> dict[int, Range]:
        if assessed.spec.distribution is None:
            return {}
        picked = {p.replica: self._devices(p) for p in picks}
        if not picked:
            return {}
        assigned = assigned_ranges(assessed.workload, self.ledger)
        return divide(assessed.workload, assessed.spec, assigned, picked)

    def _devices(self, pick: Pick) -> list[DeviceState]:
        return [d for d in self.fleet.nodes[pick.node].devices if d.uuid in pick.devices]


def _without(ledger: Ledger, pod_uids: set[str]) -> Ledger:
    """Releases the reservations of gated pods immediately: no kubelet has seen the pods."""
    dropped = tuple(r for uid, r in ledger.active.items() if uid in pod_uids)
    active = {uid: r for uid, r in ledger.active.items() if uid not in pod_uids}
    return replace(ledger, active=active, to_release=(*ledger.to_release, *dropped))


def _with(ledger: Ledger, added: Sequence[Reservation]) -> Ledger:
    if not added:
        return ledger
    return replace(ledger, active={**ledger.active, **{r.assignment.pod_uid: r for r in added}})
