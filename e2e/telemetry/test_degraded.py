"""A device of a running container falls off the bus."""

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace


def test_replace_moves_the_pod_and_ignore_keeps_it(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: `placement.onDegraded`, decided by the device's health in telemetry.

    Two workloads lose a device each. One is placed again on healthy devices, the other one keeps running; both are
    Degraded.
    """
    node = fleet.nodes[1]
    namespace.apply(
        gpuworkload("moves", count=2, node=node, placement={"onDegraded": "Replace"}),
        gpuworkload("stays", count=2, node=node),
    )
    before = {name: found.replicas[0] for name, found in namespace.verify("moves", "stays").items()}
    for replica in before.values():
        fleet.gpus[node].lose(replica.picked[0])
    for name in before:
        message = namespace.wait_condition(name, "Degraded", "True", "DeviceUnhealthy", within=20)
        assert before[name].picked[0] in message, message
    eventually(lambda: _replaced(namespace, before["moves"].pod_uid), within=40)
    (after,) = namespace.verify("moves")["moves"].replicas
    assert before["moves"].picked[0] not in after.picked
    assert before["stays"].picked[0] not in after.picked
    assert before["moves"].picked[0] in namespace.event("moves", "DeviceUnhealthy")
    never(lambda: _untouched(namespace, before["stays"].pod_uid), for_seconds=3)


def _replaced(namespace: TestNamespace, uid: str) -> None:
    assert namespace.pod("moves")["metadata"]["uid"] != uid, "not replaced yet"


def _untouched(namespace: TestNamespace, uid: str) -> None:
    assert namespace.pod("stays")["metadata"]["uid"] == uid
