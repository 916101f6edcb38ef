"""A namespace is deleted under workloads that run: it accepts no new object, and its objects go in any order."""

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.faults.lagging import LaggingOperator
from gpufleet_testing.operator.process import moment

pytestmark = pytest.mark.histories
MAX_ATTEMPTS = 18
"""To create pods that a terminating namespace rejects: three for each replica, with pauses."""


class TerminatingCluster(FakeCluster):
    """Counts the creations of pods that are rejected."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.rejected = 0

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        self.rejected += self.reject_creation
        return await super().create_pod(body)

    def delete_some(self, random: Random) -> None:
        """The namespace controller deletes the objects of one kind after the other, in an order of its own."""
        kinds = [kind for kind in ("workloads", "services", "pods") if self.of(kind)]
        kind = random.choice(kinds) if kinds else ""
        for body in self.of(kind):
            key = f"ml/{body['metadata']['name']}"
            if kind == "pods":
                self.delete_gracefully(key)
            else:
                self.remove(kind, key)


@pytest.mark.parametrize("seed", range(histories(4)))
async def test_nothing_is_left_of_a_namespace_that_is_deleted(seed: int) -> None:
    cluster, random = TerminatingCluster(), Random(seed)  # noqa: S311 - a repeatable history
    operator = LaggingOperator(cluster, random)
    cluster.submit("runs", replicas=2, network={"enableDNSHostnames": True})
    cluster.submit("gang", replicas=2, placement={"gang": True})
    cluster.submit("waits", devices={"count": 3}, replicas=2)
    for _ in range(5):
        operator.hear_some()
        await moment(cluster, operator)

    cluster.reject_creation = True
    for _ in range(12):
        cluster.delete_some(random)
        operator.hear_some()
        await operator.act()
        invariants.check_always(cluster)
        for node in cluster.kubelets:
            cluster.kubelet(node)
            cluster.agent(node)
        cluster.advance(random.choice([0, 1, 6]))
    await invariants.settle(cluster, operator)

    assert [kind for kind in ("workloads", "services", "pods") if cluster.of(kind)] == []
    assert not list(cluster.ledger())
    assert cluster.rejected <= MAX_ATTEMPTS
