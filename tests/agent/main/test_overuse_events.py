"""Over-use, from the driver's process list to status, series and event."""

import asyncio
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.kube.model import PodEvent, TelemetryObject, parse_object
from gpufleet_agent.overuse import monitor
from gpufleet_api.names import SHARED_RESOURCE
from gpufleet_simgpu.model import SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.agents import make_agent
from gpufleet_testing.agent.kube_apis import JsonObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.simulated import Simulated

UUID = make_node("h100", 4).gpus[1].uuid
ASSIGNMENT: dict[str, Any] = {
    "podUID": "uid-serve-0",
    "namespace": "ml",
    "pod": "serve-0",
    "container": "main",
    "workload": "serve",
    "workloadUID": "w",
    "replica": 0,
    "replicas": 1,
    "resource": SHARED_RESOURCE,
    "devices": [UUID],
    "memoryMiB": 20_000,
    "decidedAt": "2026-01-01T00:00:00.000000Z",
}


def overuse(status: Mapping[str, Any]) -> list[Any]:
    return [holder.get("overuse") for one in status.get("devices", ()) for holder in one.get("allocatedTo", ())]


async def test_a_holder_that_uses_more_than_promised_is_named_everywhere(
    simulated: Simulated, kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "CHECK_SECONDS", 0.05)
    # A process that is gone before anybody can look it up: the only holder answers for the whole device.
    simulated.edit(lambda node: node.with_gpu(1, memory_used_mib=30_000, processes=(SimProcess(2**22 - 1, 30_000),)))
    events: list[PodEvent] = []

    cluster = JsonObjectApi()

    async def get() -> TelemetryObject:
        document = {"metadata": cluster.metadata, "status": cluster.status, "spec": {"assignments": [ASSIGNMENT]}}
        return parse_object(document)

    async def create_event(event: PodEvent) -> None:
        events.append(event)

    monkeypatch.setattr(cluster, "get", get)
    monkeypatch.setattr(cluster, "create_event", create_event)
    agent = make_agent(kubelet, cluster, NvmlHardware())
    task = asyncio.create_task(agent.run())
    try:
        async with kubelet:
            await kubelet.until(lambda: kubelet.serving(SHARED_RESOURCE))
            await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE)
            await cluster.until(lambda _: any(overuse(cluster.status)))
            (reported,) = overuse(cluster.status)
            assert reported["memoryUsedMiB"] == 30_000
            (holder,) = [one for gpu in cluster.status["devices"] for one in gpu.get("allocatedTo", ())]
            assert (holder["memoryUsedMiB"], holder["memoryUsedMaxMiB"]) == (30_000, 30_000)
            assert holder["observedSince"] <= cluster.status["observedAt"]
            url = f"http://127.0.0.1:{agent.http_port}/metrics"
            page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
            simulated.edit(lambda node: node.with_gpu(1, memory_used_mib=15_000))
            await cluster.until(lambda _: overuse(cluster.status) == [None])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    node = agent.settings.node_name
    labels = f'{{UUID="{UUID}",container="main",gpu="1",hostname="{node}",namespace="ml",pod="serve-0"}}'
    assert f"gpufleet_agent_share_memory_overused{labels} 1.0" in page
    assert f"gpufleet_agent_share_memory_used_bytes{labels} 3.145728e+10" in page
    (event,) = events
    assert (event.namespace, event.pod, event.pod_uid, event.reason) == (
        "ml",
        "serve-0",
        "uid-serve-0",
        "MemoryOveruse",
    )
    assert event.message == f"Container main uses 30000 MiB of GPU 1 ({UUID}), but was promised 20000 MiB"
