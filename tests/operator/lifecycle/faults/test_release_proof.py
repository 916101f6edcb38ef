"""A pod is released only while its reservation is stored, although the cache may be behind."""

from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.apiserver import Crash, WriteFault
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess, moment


async def test_pod_is_not_released_to_a_node_that_registered_again() -> None:
    """The operator dies between the two writes; the event of the new GPUTelemetry arrives after its restart."""
    cluster = FakeCluster(1, 1)
    cluster.submit("train")
    operator = OperatorProcess(cluster)
    while not list(cluster.ledger()):
        operator.hear(1000)
        cluster.fault = WriteFault(0, Crash, after=True)
        try:
            await operator.act()
        except Crash:
            operator = OperatorProcess(cluster)
        cluster.fault = None
    assert cluster.released == []
    cluster.register_again("node-1")

    await operator.act()
    assert cluster.released == [], "released without a reservation"
    for _ in range(3):
        await moment(cluster, operator)

    invariants.check_always(cluster)
    assert [node for _, node, _ in cluster.released] == ["node-1"]
