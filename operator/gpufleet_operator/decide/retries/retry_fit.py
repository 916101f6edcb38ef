"""Whether replicas would be placed on the nodes that may be tried during a retry pause.

Their pods are created only then: a gated pod that waits for a node of the pause would use quota until its end.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from gpufleet_api.names import Transport
from gpufleet_operator.decide.assessment.template_pod import template_pod
from gpufleet_operator.decide.claims.transports import without_device_requests
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.demand.learned_share import with_learned_demand
from gpufleet_operator.fleet import rejecting_nodes
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError


class RetryFit:
    """Checks workloads one by one, each as if it were the only one. The fleet is built for the first of them.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        ledger: At the start of this pass.
        source: Where the fleet comes from.
    """

    def __init__(self, snapshot: Snapshot, state: PassState, ledger: Ledger, source: FleetSource) -> None:
        self._snapshot, self._state, self._ledger, self._source = snapshot, state, ledger, source

    def placeable(self, assessed: WorkloadReplicas, replicas: Sequence[Replica]) -> frozenset[int]:
        """Returns the replicas for which there are devices; of a gang, all or none."""
        workload, snapshot = assessed.workload, self._snapshot
        if workload.model is None or not replicas:
            return frozenset()
        indices = tuple(r.index for r in replicas)
        excluded = excluded_nodes(snapshot, self._state, workload.uid, indices)
        rejecting = frozenset(rejecting_nodes.active(self._state.rejections.by_node, snapshot.now))
        requested = request(
            workload.model,
            replicas=indices,
            resources=snapshot.limits.resources,
            excluded_nodes={index: nodes | rejecting for index, nodes in excluded.items()},
            placed_replicas=Counter(r.reservation.node for r in assessed.replicas if r.reservation is not None),
        )
        existing = (r.pod for r in replicas if r.pod is not None)
        pod = next(existing, None) or template_pod(snapshot, workload, assessed.spec)
        if snapshot.nodes_with.get(Transport.DRA):
            pod = without_device_requests(pod, snapshot.limits.resources)  # it may be created with a claim
        requested = with_learned_demand(requested, snapshot, workload, [pod])
        restricted = self._pods.restrict(requested, assessed.spec.requirements, pod)
        try:
            picks = place(self._fleet, restricted, snapshot.mix).picks
        except PlacementError:
            return frozenset()
        return frozenset(pick.replica for pick in picks)

    @cached_property
    def _fleet(self) -> Fleet:
        return self._source.fleet(self._snapshot, self._ledger, waiting=True).fleet

    @cached_property
    def _pods(self) -> PlacedPods:
        return self._source.pods(self._snapshot, self._ledger)
