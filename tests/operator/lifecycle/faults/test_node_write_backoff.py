"""A node whose reservations cannot be written for a while."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess


class UnwritableCluster(FakeCluster):
    """One GPU, whose node rejects the first three reservations."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.failures = 3

    async def patch_telemetry(self, node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("no answer")
        return await super().patch_telemetry(node, patch)


async def test_waiting_workload_gets_the_node_when_its_backoff_ends() -> None:
    """That end is no change of the node. Each decision is compared with one on the whole cluster."""
    cluster = UnwritableCluster()
    operator, begin = OperatorProcess(cluster, checked=True), cluster.now
    cluster.submit("waits")

    while cluster.now - begin < timedelta(seconds=5):
        due = None
        for _ in range(3):  # each pass sees what the one before wrote, or failed to write
            operator.hear(100)
            due = await operator.act()
        if list(cluster.ledger()):
            break
        assert due is not None
        cluster.advance((due - cluster.now).total_seconds())

    assert cluster.now - begin == timedelta(seconds=0.5 + 1 + 2), "three backoffs"
