"""Whether replicas would be placed on the nodes that may be tried during a retry pause.

Their pods are created only then: a gated pod that waits for a node of the pause would use quota until its end.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.fleet.pod_rules import PlacedPods
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.pods import build
from gpufleet_operator.pods.requests import pod_needs
from gpufleet_operator.pods.traits import pod_traits


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
        requested = request(
            workload.model,
            replicas=indices,
            resources=snapshot.limits.resources,
            excluded_nodes=excluded_nodes(snapshot, self._state, workload.uid, indices),
            placed_replicas=Counter(r.reservation.node for r in assessed.replicas if r.reservation is not None),
        )
        pod = next((r.pod for r in replicas if r.pod is not None), None) or self._template_pod(assessed)
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

    def _template_pod(self, assessed: WorkloadReplicas) -> Pod:
        """Returns a pod as it is before admission."""
        workload, limits = assessed.workload, self._snapshot.limits
        name = build.pod_name(workload.name, 0, workload.uid)
        body = build.build(workload, assessed.spec, 0, name, limits.resources, policy=limits.pod_policy)
        return Pod(
            uid="",
            namespace=workload.namespace,
            name=name,
            resource_version="",
            created=self._snapshot.now,
            workload_uid=workload.uid,
            needs=pod_needs(body["spec"]),
            traits=pod_traits(workload.namespace, body["metadata"]["labels"], body["spec"]),
        )
