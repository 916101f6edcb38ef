"""A node moves from the device plugin to claims, and back, while pods run on it."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.proof import Source
from gpufleet_e2e.support.api import NODES, JsonObject, pods
from gpufleet_e2e.support.claims import TRANSPORT_LABEL, serves_claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

READY_SECONDS = 60


@pytest.fixture
def moving(fleet: Fleet) -> Iterator[str]:
    """A node whose transport its label chooses: none yet, so the device plugin."""
    name = fleet.nodes[1]
    fleet.install(values={"transport": "PerNode"})
    yield name
    _label(fleet, name, None)
    fleet.restore_later()


def test_node_moves_to_claims_and_back_without_losing_a_pod(
    moving: str, namespace: TestNamespace, fleet: Fleet
) -> None:
    """Mechanism: reservations and the kubelet's list count for both transports, so each device is used by one of them.

    A workload and a pod without one run by the device plugin. After the move, new pods get the other devices by claims,
    and those two keep theirs until they end, also when the kubelet restarts.
    """
    devices = fleet.gpus[moving].uuids
    namespace.apply(gpuworkload("stays", count=2, node=moving))
    kept = set(namespace.devices("stays"))
    on_node = {"nodeSelector": {"kubernetes.io/hostname": moving}}
    fleet.api.create(pods(namespace.name), plain_pod("plain", count=1, **on_node))
    namespace.wait_running("plain", within=READY_SECONDS)
    (plain,) = next(one.devices for one in fleet.collector.holdings() if one.pod == "plain")
    before = _containers(namespace)

    _label(fleet, moving, "DRA")
    eventually(partial(serves_claims, fleet, moving), within=READY_SECONDS)
    namespace.apply(gpuworkload("claims", count=5, node=moving), gpuworkload("waits", count=2, node=moving))
    (replica,) = namespace.verify("claims")["claims"].replicas
    assert Source.CLAIM in replica.says
    assert set(replica.picked) == set(devices) - kept - {plain}
    message = namespace.wait_condition("waits", "Placed", "False", "NoDevicesAvailable")
    print(message)
    fleet.node(moving).restart_kubelet()
    eventually(partial(serves_claims, fleet, moving), within=READY_SECONDS)
    never(lambda: _keeps(namespace, before), for_seconds=3)
    namespace.wait_ready("stays")

    # The last pods of the device plugin leave the node, and their devices are given to claims.
    namespace.delete("stays")
    (replica,) = namespace.verify("waits", within=READY_SECONDS)["waits"].replicas
    assert Source.CLAIM in replica.says
    assert set(replica.picked) == kept

    # Back: the last pods with claims must leave before, because the kubelet ends them with the driver only.
    namespace.delete("claims", "waits")
    eventually(lambda: _has_left(namespace, "claims", "waits"), within=READY_SECONDS)
    before = _containers(namespace)
    _label(fleet, moving, None)
    eventually(lambda: _offers(fleet, moving), within=READY_SECONDS)
    namespace.apply(gpuworkload("again", count=7, node=moving))
    (replica,) = namespace.verify("again", within=READY_SECONDS)["again"].replicas
    assert Source.CLAIM not in replica.says
    assert set(replica.picked) == set(devices) - {plain}
    _keeps(namespace, before)


def _label(fleet: Fleet, node: str, transport: str | None) -> None:
    fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {TRANSPORT_LABEL: transport}}})


def _offers(fleet: Fleet, node: str) -> None:
    assert fleet.telemetry(node)["status"].get("transport", "DevicePlugin") == "DevicePlugin"
    assert fleet.allocatable(node) == len(fleet.gpus[node].uuids)


def _has_left(namespace: TestNamespace, *names: str) -> None:
    left = [pod["metadata"]["name"] for name in names for pod in namespace.all_pods(name)]
    assert not left, f"pods: {left}"


def _containers(namespace: TestNamespace) -> dict[str, str]:
    """Returns the container of each running pod that is not being deleted."""
    found: list[JsonObject] = namespace.fleet.api.list(pods(namespace.name))
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"]
        for pod in found
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def _keeps(namespace: TestNamespace, before: dict[str, str]) -> None:
    now = _containers(namespace)
    assert {name: now.get(name) for name in before} == before
