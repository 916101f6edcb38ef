"""Chooses the transport of each new pod, so that none has to be replaced to use the other one.

In a fleet with both, the devices are chosen before the pod exists, and only the transport of their node is used: the
pod after admission may need something else, and others are placed before it.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial

from gpufleet_api.names import Transport
from gpufleet_operator.decide.assessment.template_pod import template_pod
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.claims.transports import (
    may_switch,
    nodes_with_other_transport,
    stored_transport,
    without_device_requests,
)
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.demand.learned_share import placed_share, with_learned_demand
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.kept import ReplicaKey
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod, Telemetry
from gpufleet_operator.model.replica import WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.model import DeviceNeeds, Pick, PodNeeds, Request, Share
from gpufleet_operator.placement.search.constraints import selected, untolerated
from gpufleet_operator.placement.search.query import query_key


def transports_of_new_pods(
    snapshot: Snapshot,
    state: PassState,
    ledger: Ledger,
    assessed: Iterable[WorkloadReplicas],
    source: FleetSource,
    *,
    guard: WorkloadGuard,
) -> dict[ReplicaKey, Transport]:
    """Returns the transport of the node that each new pod would be placed on; unplaced pods are absent.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        ledger: Before this pass places anything.
        assessed: The workloads of which pods are created, in order.
        source: Where the fleet comes from.
        guard: Of the pass.
    """
    if not may_switch(snapshot):
        return {}
    expected = _ExpectedPods(snapshot, state, ledger, source)
    found: dict[ReplicaKey, Transport] = {}
    try:
        for each in assessed:
            found |= guard.call(each.workload.uid, partial(expected.transports, each)) or {}
    finally:
        expected.undo()
    return found


class _ExpectedPods:
    """Places pods that do not exist, one workload after the other, until `undo`."""

    def __init__(self, snapshot: Snapshot, state: PassState, ledger: Ledger, source: FleetSource) -> None:
        self._snapshot, self._state, self._ledger, self._source = snapshot, state, ledger, source
        self._held: list[tuple[str, tuple[str, ...], PodNeeds, Share | None]] = []
        self._suitable: dict[Hashable, tuple[Transport, ...]] = {}

    def transports(self, assessed: WorkloadReplicas) -> dict[ReplicaKey, Transport]:
        """Returns the transports of a workload's missing pods."""
        workload, snapshot = assessed.workload, self._snapshot
        missing = [r.index for r in assessed.replicas if r.wait_reason is WaitReason.POD and not r.retry_paused]
        if workload.model is None or not missing:
            return {}
        pod = template_pod(snapshot, workload, assessed.spec)
        requested = self._request(assessed, missing, pod)
        suitable = self._suitable_transports(requested)
        if len(suitable) == 1:
            return {(workload.uid, index): suitable[0] for index in missing}
        known = [index for index in missing if stored_transport(snapshot, self._state, workload, index) is not None]
        if len(known) == len(missing):
            return {}
        wanted = replace(requested, replicas=tuple(index for index in missing if index not in known))
        try:
            picks = self._place(assessed, wanted, pod)
        except PlacementError:
            return {}  # the message is that of the pods, once they exist
        return {(workload.uid, pick.replica): snapshot.telemetry[pick.node].transport for pick in picks}

    def undo(self) -> None:
        """Credits everything that was deducted from the fleet."""
        for node, devices, needs, part in reversed(self._held):
            self._fleet.release(node, devices, needs, part)
        self._held = []

    @cached_property
    def _fleet(self) -> Fleet:
        return self._source.fleet(self._snapshot, self._ledger, waiting=True).fleet

    @cached_property
    def _pods(self) -> PlacedPods:
        return self._source.pods(self._snapshot, self._ledger)

    def _request(self, assessed: WorkloadReplicas, missing: Sequence[int], pod: Pod) -> Request:
        """Returns the request for the missing pods on nodes of both transports."""
        workload, model, snapshot = assessed.workload, assessed.workload.model, self._snapshot
        if model is None:
            raise TypeError(f"{workload.full_name} has no model")  # only workloads that parse are assessed
        excluded = excluded_nodes(snapshot, self._state, workload.uid, missing)
        rejecting = frozenset(rejecting_nodes.active(self._state.rejections.by_node, snapshot.now))
        requested = request(
            model,
            replicas=tuple(missing),
            resources=snapshot.limits.resources,
            excluded_nodes={index: nodes | rejecting for index, nodes in excluded.items()},
            placed_replicas=Counter(r.reservation.node for r in assessed.replicas if r.reservation is not None),
        )
        requested = with_learned_demand(requested, snapshot, workload, [pod], may_claim=True)
        plain = without_device_requests(pod, snapshot.limits.resources)
        return self._pods.restrict(requested, assessed.spec.requirements, plain)

    def _place(self, assessed: WorkloadReplicas, wanted: Request, pod: Pod) -> tuple[Pick, ...]:
        """Places the pods on nodes with the device plugin, and those that do not fit there on all nodes."""
        mix, others = self._snapshot.mix, nodes_with_other_transport(self._snapshot, Transport.DEVICE_PLUGIN)
        excluded = {index: wanted.excluded_nodes.get(index, frozenset()) | others for index in wanted.replicas}
        needs = replace(wanted.pod, extended=pod.needs.extended)
        by_plugin = replace(wanted, excluded_nodes=excluded, pod=needs)
        first = place(self._fleet, by_plugin, mix, explain=False).picks
        self._hold(assessed, first, pod)
        placed = {pick.replica for pick in first}
        rest = tuple(index for index in wanted.replicas if index not in placed)
        if not rest:
            return first
        left = place(self._fleet, replace(wanted, replicas=rest), mix, explain=False).picks
        self._hold(assessed, left, pod)
        return (*first, *left)

    def _hold(self, assessed: WorkloadReplicas, picks: Iterable[Pick], pod: Pod) -> None:
        part = placed_share(self._snapshot, assessed.workload, assessed.spec, [pod])
        needs = without_device_requests(pod, self._snapshot.limits.resources).needs
        for pick in picks:
            self._fleet.hold(pick.node, pick.devices, needs, part)
            self._held.append((pick.node, pick.devices, needs, part))

    def _suitable_transports(self, requested: Request) -> tuple[Transport, ...]:
        """Returns the transports of the nodes that may run the pods at all, whatever is in use there now."""
        key = query_key(requested)
        if key not in self._suitable:
            self._suitable[key] = tuple(
                transport
                for transport in Transport
                if any(self._is_suitable(name, requested) for name in self._snapshot.nodes_with[transport])
            )
        return self._suitable[key]

    def _is_suitable(self, name: str, requested: Request) -> bool:
        node, telemetry = self._snapshot.nodes.get(name), self._snapshot.telemetry.get(name)
        if node is None or telemetry is None or not selected(name, node.labels, requested.pod):
            return False
        return untolerated(node.taints, requested.pod.tolerations) is None and _has_devices(
            telemetry, requested.devices
        )


def _has_devices(telemetry: Telemetry, needs: DeviceNeeds) -> bool:
    """Returns True when the node has enough devices of an accepted model and UUID."""
    if telemetry.status is None:
        return False
    accepted = [
        device
        for device in telemetry.status.devices
        if (not needs.models or device.model in needs.models)
        and (not needs.include_uuids or device.uuid in needs.include_uuids)
        and device.uuid not in needs.exclude_uuids
    ]
    return len(accepted) >= needs.count
