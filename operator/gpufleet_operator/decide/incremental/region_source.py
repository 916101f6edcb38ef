"""The kept fleet as the source of a pass, which finds out whether the region of the pass is large enough."""

from collections.abc import Collection, Mapping

from gpufleet_operator.decide.incremental.region import Region, Seeds
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.fleet.build import BuiltFleet, node_states
from gpufleet_operator.fleet.kept_fleet import KeptFleet, could_serve
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import NodeState, Request


class RegionTooSmallError(Exception):
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

    def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
        del waiting
        self.kept.fill(node_states(snapshot, ledger), snapshot.now, snapshot.limits.stale_after)
        return self.kept.built

    def asked(self, workload_uid: str, request: Request | None, *, placed: bool) -> None:
        if not placed:
            self.parked[workload_uid] = request

    def finish(self, picked: Collection[str]) -> None:
        self.kept.note_picks(picked)


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
            RegionTooSmallError: A workload that waits may get devices of a node that changed.
            ContestedDeviceError: Two nodes report one device.
        """
        del waiting
        states = node_states(snapshot, ledger)
        changed = self.kept.update(self._region.nodes, states, snapshot.now, snapshot.limits.stale_after)
        woken = self._woken(changed)
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
        if not self._index.restricting_pods:
            return PlacedPods(())
        return PlacedPods.of(self._whole, ledger, self._index.nodes_reserved_for)

    def finish(self, picked: Collection[str]) -> None:
        """Notes the picks.

        Raises:
            RegionTooSmallError: They are on nodes outside of the region, whose reservations are to be written.
        """
        missing = set(picked) - self._region.nodes
        if missing:
            self.kept.restore(picked)
            raise RegionTooSmallError(Seeds(rows=missing))
        super().finish(picked)
