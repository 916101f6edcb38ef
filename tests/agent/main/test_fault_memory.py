"""The whole agent on simulated GPUs, killed and started again: what it said of faults is what it still says."""

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.agents import make_agent, running_agent
from gpufleet_testing.agent.kube_apis import JsonObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.nvml import until_listening
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


async def test_a_fault_outlives_the_agent_until_it_is_acknowledged(simulated: Simulated, kubelet: FakeKubelet) -> None:
    cluster = JsonObjectApi()
    sick = {**{uuid: [] for uuid in UUIDS}, UUIDS[1]: ["XidError"]}
    async with kubelet:
        first = NvmlHardware()
        async with running_agent(make_agent(kubelet, cluster, first)):
            await until_listening(first)
            await kubelet.until(lambda: kubelet.serving() and len(kubelet.healthy()) == 4)
            simulated.edit(lambda node: node.with_xid(2, 13).with_xid(1, 79))
            await cluster.until(lambda faults: faults == sick)
            await kubelet.until(lambda: kubelet.healthy() == {*UUIDS} - {UUIDS[1]})
        since = cluster.status["devices"][1]["health"]["reasons"][0]["since"]
        kubelet.plugins.clear()
        stale = cluster.status["observedAt"]
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await kubelet.until(kubelet.serving)
            assert kubelet.healthy() == {*UUIDS} - {UUIDS[1]}, "never offered in between"
            await cluster.until(lambda _: cluster.status["observedAt"] > stale)
            assert cluster.faults() == sick
            assert cluster.status["devices"][1]["health"]["reasons"][0]["since"] == since
            await cluster.acknowledge(cluster.status["observedAt"])
            await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS})
            await kubelet.until(lambda: kubelet.healthy() == {*UUIDS})


async def test_a_device_that_fell_off_the_bus_is_missed_after_a_restart(
    simulated: Simulated, kubelet: FakeKubelet
) -> None:
    cluster = JsonObjectApi()
    async with kubelet:
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS})
        simulated.write(make_node("h100", 3))
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await cluster.until(lambda faults: faults.get(UUIDS[3]) == ["DeviceLost"])
            await kubelet.until(lambda: kubelet.serving() and kubelet.healthy() == {*UUIDS[:3]})
        cluster.status = {**cluster.status, "bootId": "another"}
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS[:3]})


async def test_a_bad_row_of_memory_is_a_fault_for_as_long_as_it_is_there(
    simulated: Simulated, kubelet: FakeKubelet
) -> None:
    cluster = JsonObjectApi()
    simulated.edit(lambda node: node.with_gpu(0, remap_failed=1).with_gpu(1, remap_pending=1))
    async with kubelet:
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await cluster.until(lambda faults: faults.get(UUIDS[0]) == ["RowRemapFailed"])
            assert cluster.faults()[UUIDS[1]] == [], "waiting for a reset is no fault"
            (warning,) = cluster.status["devices"][1]["health"]["warnings"]
            assert (warning["code"], warning["recovery"]) == ("RowRemapPending", "Reset")
            since = cluster.status["devices"][0]["health"]["reasons"][0]["since"]
        async with running_agent(make_agent(kubelet, cluster, NvmlHardware())):
            await cluster.until(lambda faults: faults.get(UUIDS[0]) == ["RowRemapFailed"])
            assert cluster.status["devices"][0]["health"]["reasons"][0]["since"] == since
