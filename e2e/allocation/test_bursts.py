"""Many pods at the same time on one node: each gets its own devices."""

from concurrent.futures import ThreadPoolExecutor

from gpufleet_e2e.proof import Source
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.sandbox import TestNamespace

ROUNDS = {"DevicePlugin": 1, "DRA": 6}
PODS = 16


def test_sixteen_pods_on_one_node_in_parallel(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: hand-over under a burst. Sixteen workloads fill the node in parallel; each pod has its own device.

    The pods of one round still terminate while the next one begins.
    """
    node = fleet.nodes[0]
    for number in range(ROUNDS[transport]):
        names = [f"burst-{number}-{each}" for each in range(PODS)]
        with ThreadPoolExecutor(PODS) as pool:
            list(pool.map(lambda name: namespace.apply(gpuworkload(name, node=node)), names))
        evidence = namespace.verify(*names, within=90)
        picked = [uuid for one in evidence.values() for uuid in one.replicas[0].picked]
        assert sorted(picked) == sorted(fleet.gpus[node].uuids)
        assert all(one.replicas[0].says[Source.ENVIRONMENT].devices for one in evidence.values())
        assert all((Source.CLAIM in one.replicas[0].says) == (transport == "DRA") for one in evidence.values())
        namespace.delete(*names)
