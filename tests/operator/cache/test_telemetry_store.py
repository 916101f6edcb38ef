from dataclasses import replace

from gpufleet_api.names import Transport
from gpufleet_operator.cache.cache import Cache
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims


def test_nodes_with_devices_are_known_by_transport() -> None:
    store = Cache().telemetry
    for found in (claims.dra_telemetry("node-1"), make.telemetry("node-2"), make.telemetry("node-3", devices=0)):
        store.put(found)
    assert store.nodes_with == {Transport.DRA: {"node-1"}, Transport.DEVICE_PLUGIN: {"node-2"}}
    store.put(replace(make.telemetry("node-1"), resource_version="31"))
    assert store.nodes_with == {Transport.DRA: set(), Transport.DEVICE_PLUGIN: {"node-1", "node-2"}}
    store.remove("uid-node-1-telemetry", "")
    assert store.nodes_with == {Transport.DRA: set(), Transport.DEVICE_PLUGIN: {"node-2"}}
