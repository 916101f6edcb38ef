"""What users rely on most, with each transport: whole and shared devices, gangs, items, heat, and stolen devices."""

from functools import partial

import pytest

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked
from gpufleet_e2e.kubernetes_features import SHARED_CLAIMS
from gpufleet_e2e.proof import Source, compare_shards
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.claims import claim_by_hand, claims, own_class
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import SHARD, container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

SECONDS = 20


def test_replicas_are_spread_and_get_their_devices(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    namespace.apply(gpuworkload("one", count=3))
    namespace.verify("one")  # a node is not chosen as long as its reservations are being written
    namespace.apply(gpuworkload("two", replicas=2, placement={"strategy": "Spread"}))
    found = namespace.verify("one", "two")
    assert len(found["one"].replicas[0].picked) == 3
    assert {replica.node for replica in found["two"].replicas} == set(fleet.nodes)
    for replica in (*found["one"].replicas, *found["two"].replicas):
        assert (Source.CLAIM in replica.says) == (transport == "DRA")


def test_gang_fills_both_nodes_and_divides_its_items(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    del transport
    template = pod_spec(container(command=SHARD))
    items = {"items": 1001, "mode": "Proportional", "by": "TotalMemory"}
    gang = {"gang": True}
    namespace.apply(
        gpuworkload("gang", replicas=3, count=8, template=template, placement=gang, distribution=items),
        gpuworkload("other", count=1),
    )
    evidence = namespace.verify("gang")["gang"]
    assert sorted(r.node for r in evidence.replicas) == sorted([fleet.nodes[0]] * 2 + [fleet.nodes[1]])
    assert not compare_shards(evidence)
    namespace.wait_condition("other", "Placed", "False", "NoDevicesAvailable")
    namespace.delete("gang")
    namespace.verify("other", within=60)


@pytest.mark.kubernetes(SHARED_CLAIMS)
def test_sharers_keep_a_device_from_whole_use(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    del transport
    uuid = fleet.gpus[fleet.nodes[1]].uuids[2]
    devices = {"count": 1, "mode": "Shared", "memoryMiB": 20_000}
    namespace.apply(gpuworkload("sharers", replicas=3, uuids=(uuid,), devices=devices))
    found = namespace.verify("sharers")["sharers"]
    assert {replica.picked for replica in found.replicas} == {(uuid,)}
    namespace.apply(gpuworkload("whole", uuids=(uuid,)))
    message = namespace.wait_condition("whole", "Placed", "False", "NoDevicesAvailable")
    assert "in use" in message, message
    namespace.delete("sharers")
    assert namespace.devices("whole") == (uuid,)


def test_hot_device_is_used_when_it_has_cooled(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    del transport
    node = fleet.nodes[1]
    hot = fleet.gpus[node].uuids[0]
    fleet.gpus[node].report(hot, temperature_celsius=95)
    eventually(partial(fleet.check_readings, node, hot, temperature_celsius=95), within=30)
    namespace.apply(gpuworkload("cool", uuids=(hot,), requirements={"maxTemperatureCelsius": 80}))
    message = namespace.wait_condition("cool", "Placed", "False", "NoDevicesAvailable")
    assert "95" in message, message
    fleet.gpus[node].report(hot, temperature_celsius=60)
    assert namespace.devices("cool") == (hot,)


def test_reserved_device_is_not_given_to_a_thief(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """An administrator's pod takes a reserved device in the transport's own way, before the owner's pod is released.

    The device plugin gives it the only device that is not reserved. A claim names its device, so the pod waits.
    """
    node = fleet.nodes[1]
    on_node = {"kubernetes.io/hostname": node}
    with own_class(fleet), release_blocked(fleet.api, namespace.name):
        namespace.apply(gpuworkload("owner", count=7, node=node, labels=BLOCKED_LABELS))
        reserved = set(eventually(lambda: namespace.reservation("owner"), within=SECONDS)["devices"])
        (spare,) = set(fleet.gpus[node].uuids) - reserved
        if transport == "DRA":
            claim_by_hand(fleet, namespace.name, "thief", min(reserved), nodeSelector=on_node)
            never(lambda: namespace.check_pending("thief"), for_seconds=5)
            fleet.api.delete(f"{claims(namespace.name)}/thief")
        else:
            fleet.api.create(pods(namespace.name), plain_pod("thief", count=1, nodeSelector=on_node))
            namespace.wait_running("thief", within=SECONDS)
            held = {u for one in fleet.collector.holdings() if one.pod == "thief" for u in one.devices}
            assert held == {spare}
        # Its kubelet takes half a minute to end a pod whose claim it could not prepare.
        fleet.api.delete(f"{pods(namespace.name)}/thief", grace=0 if transport == "DRA" else None)
        # kube-scheduler has allocated the device to its claim. While it has it, the owner's pod would be rejected.
        eventually(lambda: _has_gone(fleet, namespace, "thief"), within=2 * SECONDS)
    assert set(namespace.devices("owner")) == reserved


def _has_gone(fleet: Fleet, namespace: TestNamespace, name: str) -> None:
    for kind in (pods, claims):
        assert fleet.api.find(f"{kind(namespace.name)}/{name}") is None
