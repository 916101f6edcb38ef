"""The kept fleet as the source of a pass, which finds out whether the region of the pass is large enough."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from gpufleet_operator.decide.assessment.workload_guard import RepeatPassError
from gpufleet_operator.decide.incremental.region import Region, Seeds
from gpufleet_operator.decide.plan import FleetSource, Plan
from gpufleet_operator.decide.queue.contenders import QueuedWorkload
from gpufleet_operator.decide.queue.contention import Earmark
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.fleet.build import BuiltFleet, node_inputs, node_state_of
from gpufleet_operator.fleet.kept_fleet import KeptFleet, could_serve
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import writable_again
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DeviceUse, QueuedCreation
from gpufleet_operator.placement.model import NodeState, Request


class RegionTooSmallError(RepeatPassError):
    """The pass depends on more than its region.

    Args:
        missing: What has to be added.
    """

    def __init__(self, missing: Seeds) -> None:
        super().__init__("the pass depends on more than its region")
        self.missing = missing


class WholeSource(FleetSource):
    """Fills an empty kept fleet with all nodes, in a pass over the whole cluster."""

    def __init__(self, kept: KeptFleet) -> None:
        self.kept = kept
        self.parked: dict[str, Request | None] = {}
        """Workloads that got no devices for all replicas that asked, and their request; None: an invalid one."""
        self.required: frozenset[str] = frozenset()
        """UIDs of workloads that the pass lacked: the next one begins with them."""

    def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
        del waiting
        inputs = tuple(node_inputs(snapshot, ledger))
        self.kept.note_inputs(inputs)
        states = (node_state_of(snapshot, one) for one in inputs)
        self.kept.fill(states, snapshot.now, snapshot.limits.stale_after)
        return self.kept.built

    def asked(self, workload_uid: str, request: Request | None, *, placed: bool) -> None:
        if not placed:
            self.parked[workload_uid] = request

    def require(self, workload_uids: Collection[str]) -> None:
        self.required = frozenset(workload_uids)

    def finish(self, plan: Plan) -> None:
        self.kept.note_picks(plan.picked_nodes)
        self.kept.earmarks = _by_device(plan.earmarks)


class RegionSource(WholeSource):
    """Brings the rows of the region up to date.

    Args:
        kept: The fleet.
        whole: The snapshot of the whole cluster.
        region: What the pass looks at.
        index: Of the cluster.
        waiting: The workloads that earlier passes found no devices for, by uid.
    """

    def __init__(
        self,
        kept: KeptFleet,
        whole: Snapshot,
        region: Region,
        index: ClusterIndex,
        waiting: Mapping[str, Request | None],
    ) -> None:
        super().__init__(kept)
        self._whole, self._region, self._index, self._waiting = whole, region, index, waiting

    def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
        """Returns the fleet.

        Raises:
            RegionTooSmallError: A workload that waits may get devices of a node that changed or is writable again.
            ContestedDeviceError: Two nodes report one device.
        """
        del waiting
        inputs = tuple(node_inputs(snapshot, ledger))
        unchanged = self.kept.note_inputs(inputs)
        states = (node_state_of(snapshot, one) for one in inputs if one.name not in unchanged)
        changed = self.kept.update(
            self._region.nodes, states, snapshot.now, snapshot.limits.stale_after, unchanged=unchanged
        )
        # The end of a backoff, or of a slow write, does not change the node, but until then no workload could use it.
        state = snapshot.previous_state
        ended = writable_again(state, snapshot.now) | rejecting_nodes.ended(state.rejections.by_node, snapshot.now)
        again = self._region.nodes & ended
        woken = self._woken([*changed, *self.kept.nodes(again)])
        if woken:
            raise RegionTooSmallError(Seeds(workloads=woken))
        return self.kept.built

    def _woken(self, changed: Collection[NodeState]) -> set[str]:
        """Returns the workloads outside of the region that have to be asked again."""
        answers: dict[object, bool] = {}
        found: set[str] = set()
        if not changed:
            return found
        for uid, request in self._waiting.items():
            if uid in self._region.workloads:
                continue
            if request is None or request.rules:
                found.add(uid)
                continue
            if request.devices not in answers:
                answers[request.devices] = any(could_serve(node, request) for node in changed)
            if answers[request.devices]:
                found.add(uid)
        return found

    def pods(self, snapshot: Snapshot, ledger: Ledger) -> PlacedPods:
        del snapshot
        restrict = bool(self._index.restricting_pods)
        return PlacedPods.of(self._whole, ledger, self._index.nodes_reserved_for, restrict=restrict)

    def waiting_elsewhere(self) -> Sequence[QueuedWorkload]:
        workloads, region, state = self._whole.workloads, self._region.workloads, self._whole.previous_state
        return [
            QueuedWorkload.of_request(workloads[uid], request, state)
            for uid, request in self._waiting.items()
            if request is not None and uid not in region and uid in workloads
        ]

    def creations_elsewhere(self) -> Mapping[str, QueuedCreation]:
        queued, region = self._whole.previous_state.queued_creations, self._region.workloads
        return {uid: one for uid, one in queued.items() if uid not in region}

    def use_elsewhere(self) -> Iterable[DeviceUse]:
        use = self._whole.previous_state.device_use
        return (one for uid, one in use.items() if uid not in self._region.pods)

    def require(self, workload_uids: Collection[str]) -> None:
        """Raises RegionTooSmallError if one of these workloads is outside of the region."""
        missing = set(workload_uids) - self._region.workloads
        if missing:
            raise RegionTooSmallError(Seeds(workloads=missing))
        super().require(workload_uids)

    def finish(self, plan: Plan) -> None:
        """Notes the picks and earmarks.

        Raises:
            RegionTooSmallError: Picks are on nodes outside of the region, whose reservations are to be written; a pod
                of a workload outside of it is evicted; or such a workload may get devices that are no longer earmarked.
        """
        region = self._region
        missing = Seeds(rows=plan.picked_nodes - region.nodes)
        current = _by_device(plan.earmarks)
        ended = {
            node
            for uuid, (node, owner, free_at) in self.kept.earmarks.items()
            if uuid not in current or current[uuid][1] != owner or (current[uuid][2] or 0.0) > (free_at or 0.0)
        }
        missing.workloads = self._woken(self.kept.nodes(ended))
        missing.workloads |= {eviction.workload_uid for eviction in plan.preemptions} - region.workloads
        if missing.rows or missing.workloads:
            self.kept.restore(plan.picked_nodes)
            raise RegionTooSmallError(missing)
        super().finish(plan)


class ProbeSource(RegionSource):
    """Finds the nodes on which a pass picks devices. The pass then ends."""

    def finish(self, plan: Plan) -> None:
        """Raises RegionTooSmallError with the nodes."""
        self.kept.restore(plan.picked_nodes)
        raise RegionTooSmallError(Seeds(rows=plan.picked_nodes))


def _by_device(earmarks: Mapping[str, Earmark]) -> dict[str, tuple[str, str, float | None]]:
    """Returns node, workload uid and end of the earmark of each device."""
    return {
        uuid: (node, uid, earmark.free_at.timestamp() if earmark.free_at is not None else None)
        for uid, earmark in earmarks.items()
        for node, uuids in earmark.devices.items()
        for uuid in uuids
    }
