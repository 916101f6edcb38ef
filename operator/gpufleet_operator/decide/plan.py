"""Picks devices for the replicas that wait for them, and returns the ledger as it is after this pass.

Workloads are placed by priority, then by age, and each pick is deducted before the next request. A gang is placed as a
whole. As long as none of its pods is released, the reservations of an incomplete gang are stale: they are dropped, and
the gang is placed again. In the same way the reservations that were written to one node are removed when the write to
another node lost a race, immediately or after a crash.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from itertools import chain

from gpufleet_api.names import Transport
from gpufleet_api.workload_placement import Strategy
from gpufleet_common import timestamps
from gpufleet_operator.decide.adoption.requests import alike_replicas, common_pod, namesake_nodes, with_reasons
from gpufleet_operator.decide.adoption.settled_nodes import needs_settled_node, unsettled_nodes
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.assignment import new_assignment
from gpufleet_operator.decide.claims.transports import (
    fits_transport,
    may_switch,
    nodes_with_other_transport,
    other_transport_reason,
    without_device_requests,
)
from gpufleet_operator.decide.pressure.candidates import pressed_devices
from gpufleet_operator.decide.pressure.plan_moves import MovePlan, plan_moves
from gpufleet_operator.decide.queue.awaited_nodes import without_awaited
from gpufleet_operator.decide.queue.contenders import (
    Contenders,
    QueuedWorkload,
    choose,
    preempts,
    reserved_from,
)
from gpufleet_operator.decide.queue.contention import Contention, Earmark
from gpufleet_operator.decide.queue.namespace_use import dominant_share, use_by_namespace
from gpufleet_operator.decide.queue.order import QueueOrder, priority_of
from gpufleet_operator.decide.queue.unplaced import stale_reservations, unplaced_replicas, without_in_flight
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.decide.shards import Range, new_ranges
from gpufleet_operator.demand.learned_share import placed_share, with_demand, with_learned_demand
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.fleet.build import BuiltFleet, build
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.kept import ReplicaKey
from gpufleet_operator.ledger.ledger import Ledger, with_added, without_pods
from gpufleet_operator.model.actions import EvictPod, failed_nodes, nodes_in_flight
from gpufleet_operator.model.objects import Pod, Reservation
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DeviceUse, PassState, PickedDevices, Preempting, QueuedCreation
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.contention.holder_table import lowest_priority
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import Decision, Diagnosis, Pick, Request
from gpufleet_operator.placement.search.query import check_request


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome for all workloads."""

    ledger: Ledger
    """As it is after this pass."""
    picked: Mapping[ReplicaKey, PickedDevices] = field(default_factory=dict)
    unplaced: Mapping[str, Diagnosis] = field(default_factory=dict)
    """By workload uid."""
    inconsistencies: tuple[str, ...] = ()
    switched: Mapping[ReplicaKey, Transport] = field(default_factory=dict)
    """Replicas whose pod has to be replaced by one for this transport."""
    earmarks: Mapping[str, Earmark] = field(default_factory=dict)
    """By workload uid."""
    preemptions: tuple[EvictPod, ...] = ()
    preempting: Mapping[str, Preempting] = field(default_factory=dict)
    """By the uid of the workload that waits."""
    moments: Mapping[str, datetime] = field(default_factory=dict)
    """Workload UID -> when its earmarks or evictions change without a change of the cluster."""
    moves: MovePlan = field(default_factory=MovePlan)
    """Pods that are moved from devices that run out of memory."""

    @property
    def picked_nodes(self) -> set[str]:
        """The nodes on which devices were picked."""
        reservations = (*(picked.reservation for picked in self.picked.values()), *self.moves.targets)
        return {reservation.node for reservation in reservations}


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

    def waiting_elsewhere(self) -> Sequence[QueuedWorkload]:
        """Returns the waiting workloads outside of the region."""
        return ()

    def creations_elsewhere(self) -> Mapping[str, QueuedCreation]:
        """Returns the workloads outside of the region whose pods wait for their creation, by UID."""
        return {}

    def use_elsewhere(self) -> Iterable[DeviceUse]:
        """Returns the devices of pods outside of the region."""
        return ()

    def require(self, workload_uids: Collection[str]) -> None:
        """Called with the workloads that the pass needs."""

    def finish(self, plan: Plan) -> None:
        """Called with the result."""


def place_waiting(
    snapshot: Snapshot,
    state: PassState,
    ledger: Ledger,
    assessed: Sequence[WorkloadReplicas],
    source: FleetSource,
    *,
    guard: WorkloadGuard,
) -> Plan:
    """Places all workloads; their order in `assessed` does not matter."""
    movable = [without_in_flight(a, state.pods_in_flight) for a in assessed]
    stale = {r.pod.uid for a in movable for r in stale_reservations(a) if r.pod is not None}
    recovered = [r.reservation for a in assessed for r in a.replicas if r.recovered and r.reservation is not None]
    ledger = with_added(without_pods(ledger, stale), recovered)
    waiting = [a for a in movable if unplaced_replicas(a)]
    pressed = pressed_devices(snapshot, state, ledger, assessed)
    built = source.fleet(snapshot, ledger, waiting=bool(waiting or pressed))
    planner = _Planner(snapshot, state, built, ledger, source)
    elsewhere = source.waiting_elsewhere()
    if waiting or elsewhere:
        planner.place_all(waiting, elsewhere, guard)
    plan = planner.plan(waiting) if waiting else Plan(ledger)
    if pressed:
        moves = plan_moves(snapshot, state, planner.fleet, planner.pods, pressed, unusable=planner.unusable)
        plan = replace(plan, ledger=replace(plan.ledger, kept=(*plan.ledger.kept, *moves.targets)), moves=moves)
    source.finish(plan)
    return plan


class _Planner:
    def __init__(
        self, snapshot: Snapshot, state: PassState, built: BuiltFleet, ledger: Ledger, source: FleetSource
    ) -> None:
        self.snapshot = snapshot
        self.state = state
        self.built = built
        self.ledger = ledger
        self.source = source
        self.in_flight = nodes_in_flight(state)
        rejecting = rejecting_nodes.active(state.rejections.by_node, snapshot.now)
        self.failing = failed_nodes(state, snapshot.now).union(rejecting)
        self.picked: dict[ReplicaKey, PickedDevices] = {}
        self.unplaced: dict[str, Diagnosis] = {}
        self.switched: dict[ReplicaKey, Transport] = {}
        self.contention = Contention(snapshot, state, built.fleet, Contenders())
        self.order = QueueOrder(())

    @cached_property
    def unusable(self) -> frozenset[str]:
        return self.failing | self.in_flight

    @property
    def fleet(self) -> Fleet:
        return self.built.fleet

    @cached_property
    def pods(self) -> PlacedPods:
        """Read for the first request: most passes place nothing."""
        return self.source.pods(self.snapshot, self.ledger)

    @cached_property
    def other_nodes(self) -> dict[Transport, frozenset[str]]:
        """The nodes that do not have a transport: the sets are as large as the cluster."""
        return {each: nodes_with_other_transport(self.snapshot, each) for each in Transport}

    @cached_property
    def unsettled(self) -> dict[str, str]:
        return unsettled_nodes(self.snapshot)

    def place_all(
        self, waiting: Sequence[WorkloadReplicas], elsewhere: Iterable[QueuedWorkload], guard: WorkloadGuard
    ) -> None:
        """Places workloads in the order of the queue, and earmarks devices for the first ones that do not fit."""
        here = {a.workload.uid: a for a in waiting}
        contenders = choose(
            (*(QueuedWorkload.of(a, self.state) for a in waiting), *elsewhere),
            self.snapshot.limits,
            self.snapshot.now,
            lowest=lambda: lowest_priority(self.fleet),
            is_valid=lambda uid: uid not in here or guard.call(uid, partial(self._is_valid, here[uid])) is True,
        )
        self.source.require(contenders.all)
        self.contention = Contention(self.snapshot, self.state, self.fleet, contenders)
        fair = self.snapshot.limits.fair_namespaces
        self.order = QueueOrder(waiting, heads=contenders.heads, use=self._use if fair else None)
        for assessed in self.order:
            guard.call(assessed.workload.uid, partial(self._place_workload, assessed, unplaced_replicas(assessed)))

    def plan(self, waiting: Sequence[WorkloadReplicas]) -> Plan:
        """Returns the result for the workloads that waited."""
        before, contention = self.state.preempting, self.contention
        return Plan(
            with_added(self.ledger, [p.reservation for p in self.picked.values()]),
            self.picked,
            self.unplaced,
            self.built.inconsistencies,
            self.switched,
            earmarks=contention.earmarks,
            preemptions=tuple(contention.evictions),
            preempting={a.workload.uid: before[a.workload.uid] for a in waiting if a.workload.uid in before}
            | contention.preempting,
            moments=self._moments(waiting),
        )

    def _moments(self, waiting: Sequence[WorkloadReplicas]) -> dict[str, datetime]:
        """Returns when the earmarks or evictions of each workload change without a change of the cluster."""
        limits, now = self.snapshot.limits, self.snapshot.now
        found = {
            one.uid: moment
            for one in (QueuedWorkload.of(a, self.state) for a in waiting)
            if one.uid in self.unplaced and one.needs_several
            if (moment := reserved_from(one, limits)) is not None and moment > now
        }
        for uid, moment in self.contention.moments.items():
            found[uid] = min(moment, found.get(uid, moment))
        return found

    def _use(self) -> dict[str, float]:
        everything = chain(self.state.device_use.values(), self.source.use_elsewhere())
        return use_by_namespace(everything, self.snapshot.now)

    def _is_valid(self, assessed: WorkloadReplicas) -> bool:
        try:
            check_request(self._request(assessed, unplaced_replicas(assessed), frozenset()))
        except PlacementError:
            return False
        return True

    def _place_workload(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...]) -> None:
        """Places the given replicas of one workload, and deducts their devices from the fleet."""
        groups = alike_replicas(assessed, replicas)
        for alike in groups:
            self._place(assessed, alike, alone=len(groups) == 1)

    def _place(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...], *, alone: bool) -> None:
        workload = assessed.workload
        foreign = [r.pod for r in replicas if r.pod is not None and assessed.spec.adopts]
        unsettled = self.unsettled if any(map(needs_settled_node, foreign)) else {}
        status = workload.status
        started = timestamps.parse(status.start_time) if status is not None and status.start_time else None
        try:
            requested = self._request(assessed, replicas, frozenset(unsettled))
            with self.contention.lent(assessed.spec, started, _grace_period(replicas)):
                decision = place(self.fleet, requested, self.snapshot.mix)
                if decision.diagnosis is not None and may_switch(self.snapshot) and not assessed.spec.adopts:
                    decision = self._place_on_all(assessed, replicas, decision)
            failed = decision.unplaced
            decision = without_awaited(decision, requested, self.in_flight, len(self.fleet.where))
            ranges = new_ranges(assessed, self.ledger, self.fleet, decision.picks)
        except PlacementError as error:
            self.source.asked(workload.uid, None, placed=False)
            self.unplaced[workload.uid] = Diagnosis(str(error), len(self.fleet.where), 0)
            return
        # A workload with several requests is asked again after each change.
        self.source.asked(workload.uid, requested if alone else None, placed=decision.diagnosis is None)
        self._hold(assessed, replicas, decision.picks, ranges)
        if decision.diagnosis is not None:
            diagnosis = decision.diagnosis
            if alone and failed:
                left = replace(requested, replicas=failed)
                diagnosis = self.contention.keep(assessed, left, diagnosis)
            reasons = (*unsettled.values(), *self._transport_reasons(foreign))
            pods = [r.pod for r in replicas if r.pod is not None]
            self.unplaced[workload.uid] = with_demand(with_reasons(diagnosis, reasons), self.snapshot, workload, pods)

    def _hold(
        self,
        assessed: WorkloadReplicas,
        replicas: Iterable[Replica],
        picks: Iterable[Pick],
        ranges: Mapping[int, Range],
    ) -> None:
        """Deducts picks from the fleet."""
        workload = assessed.workload
        by_index = {r.index: r for r in replicas}
        part = placed_share(self.snapshot, workload, assessed.spec, (r.pod for r in by_index.values()))
        for pick in picks:
            pod = by_index[pick.replica].pod
            if pod is None or (workload.uid, pick.replica) in self.switched:
                continue
            assignment = new_assignment(
                self.snapshot, workload, pick.replica, pod, devices=pick.devices, shard=ranges.get(pick.replica)
            )
            self.picked[workload.uid, pick.replica] = PickedDevices(Reservation(pick.node, assignment), pick.terms)
            self.fleet.hold(pick.node, pick.devices, pod.needs, part)
            self.pods.add(pick.node, pod.traits)
            self.order.picked(workload.namespace, dominant_share(assignment, None))

    def _transport_reasons(self, foreign: Iterable[Pod]) -> Iterable[str]:
        """Yields why nodes are excluded for pods of other owners, which the operator cannot replace by others."""
        for transport in sorted({pod.transport for pod in foreign}):
            if other := self.other_nodes[transport]:
                yield other_transport_reason(transport, len(other))

    def _place_on_all(self, assessed: WorkloadReplicas, replicas: tuple[Replica, ...], found: Decision) -> Decision:
        """Places the replicas for which no node with the transport of their pod has devices on all nodes.

        Pods on nodes of the other transport are replaced. The other pods of a gang wait for these.
        """
        placed = {pick.replica for pick in found.picks}
        rest = tuple(r for r in replicas if r.index not in placed)
        pods = {r.index: r.pod for r in replicas}
        held = [(p.node, p.devices, pod.needs) for p in found.picks if (pod := pods[p.replica]) is not None]
        part = placed_share(self.snapshot, assessed.workload, assessed.spec, pods.values())
        for node, devices, needs in held:
            self.fleet.hold(node, devices, needs, part)
        try:
            requested = self._request(assessed, rest, frozenset(), any_transport=True)
            decision = place(self.fleet, requested, self.snapshot.mix)
        finally:
            for node, devices, needs in held:
                self.fleet.release(node, devices, needs, part)
        switched = {
            (assessed.workload.uid, pick.replica): self.snapshot.telemetry[pick.node].transport
            for pick in decision.picks
            if (pod := pods[pick.replica]) is not None and not fits_transport(self.snapshot, pod, pick.node)
        }
        self.switched |= switched
        return replace(decision, picks=found.picks)

    def _request(
        self,
        assessed: WorkloadReplicas,
        replicas: tuple[Replica, ...],
        unsettled: frozenset[str],
        *,
        any_transport: bool = False,
    ) -> Request:
        workload, model = assessed.workload, assessed.workload.model
        if model is None:
            raise TypeError(f"{workload.full_name} has no model")  # only workloads that parse are assessed
        unplaced = {r.index for r in replicas}
        kept = (r.reservation for r in assessed.replicas if r.reservation is not None and r.index not in unplaced)
        requested = request(
            model,
            replicas=tuple(r.index for r in replicas),
            resources=self.snapshot.limits.resources,
            excluded_nodes=self._excluded_nodes(assessed, replicas, unsettled, any_transport=any_transport),
            placed_replicas=Counter(one.node for one in (*kept, *assessed.reserved_in_flight)),
        )
        requested = replace(requested, priority=priority_of(assessed), may_preempt=preempts(replicas))
        pods = [r.pod for r in replicas if r.pod is not None]
        requested = with_learned_demand(requested, self.snapshot, workload, pods, may_claim=any_transport)
        pod = common_pod(pods)
        if any_transport or any(one.transport is Transport.DRA for one in pods):
            pod = without_device_requests(pod, self.snapshot.limits.resources)
        return self.pods.restrict(requested, model.spec.requirements, pod)

    def _excluded_nodes(
        self, assessed: WorkloadReplicas, replicas: Sequence[Replica], unsettled: frozenset[str], *, any_transport: bool
    ) -> dict[int, frozenset[str]]:
        """Returns, per replica, the nodes that rejected it, and the nodes whose last write failed or has no response.

        Such a node is skipped, so that another node is taken, and a gang does not hold its other nodes while it waits.
        Spread waits for the response instead.
        """
        rejected = excluded_nodes(self.snapshot, self.state, assessed.workload.uid, (r.index for r in replicas))
        namesakes = namesake_nodes(self.ledger, replicas)
        waits = assessed.spec.placement.strategy is Strategy.SPREAD and not any_transport
        always = (self.failing if waits else self.unusable) | unsettled
        excluded = {index: always | nodes | namesakes.get(index, frozenset()) for index, nodes in rejected.items()}
        if not any_transport:
            for replica in replicas:
                if replica.pod is not None and (nodes := self.other_nodes[replica.pod.transport]):
                    excluded[replica.index] = nodes | excluded[replica.index] if excluded[replica.index] else nodes
        # Without an entry the engine can use its memo of explanations.
        return {index: nodes for index, nodes in excluded.items() if nodes}


def _grace_period(replicas: Iterable[Replica]) -> timedelta:
    """Returns for how long the pods may run after their deletion."""
    seconds = (r.pod.termination_grace_period_seconds for r in replicas if r.pod is not None)
    return timedelta(seconds=max(seconds, default=0))
