"""Series while the driver goes away and comes back, scraped from a sampler on simulated GPUs."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.metrics.agent_collector import AgentCollector
from gpufleet_agent.metrics.device_collector import DeviceCollector
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.timing import Timing
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import until_listening
from gpufleet_testing.simulated import Simulated

UUID = make_node("h100", 4).gpus[0].uuid
TIMING = Timing(sample=0.05, slow=0.05, window=1.0, event_wait=0.05, retry_first=0.05, retry_max=0.1)
COUNTERS = (
    "gpufleet_agent_samples_total",
    "gpufleet_agent_device_events_total",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
)


async def test_counters_do_not_decrease_while_driver_restarts(simulated: Simulated) -> None:
    hardware = NvmlHardware()
    sampler = Sampler(hardware, timing=TIMING)
    registry = CollectorRegistry()
    registry.register(DeviceCollector(sampler.snapshot, dict, "node-1", TIMING.window))
    registry.register(
        AgentCollector(sampler.snapshot, "node-1", lambda: None, lambda: None, stale_seconds=TIMING.window)
    )
    course: list[dict[str, float]] = []

    def scrape() -> dict[str, float]:
        families = text_string_to_metric_families(generate_latest(registry).decode())
        samples = [sample for family in families for sample in family.samples]
        course.append({one.name: one.value for one in samples if one.labels.get("UUID", UUID) == UUID})
        return course[-1]

    async def until(condition: Callable[[dict[str, float]], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(scrape()):  # noqa: ASYNC110 - scraping is how one looks
                await asyncio.sleep(0.02)

    await sampler.start()
    try:
        await until_listening(hardware)
        simulated.edit(lambda node: node.with_gpu(0, energy_millijoules=10**9).with_xid(0, 31))
        await until(lambda seen: seen.get("gpufleet_agent_device_events_total") == 1)
        simulated.edit(lambda node: replace(node, error=9))
        await until(lambda seen: "DCGM_FI_DEV_GPU_TEMP" not in seen and not seen["gpufleet_agent_hardware_available"])
        simulated.edit(lambda node: replace(node, error=0))
        await until(lambda seen: "DCGM_FI_DEV_GPU_TEMP" in seen and "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" in seen)
        before = len(course)
        await until(lambda seen: seen["gpufleet_agent_samples_total"] > course[before]["gpufleet_agent_samples_total"])
    finally:
        await sampler.close()
    for name in COUNTERS:
        values = [seen[name] for seen in course if name in seen]
        assert values == sorted(values), name
        assert len(values) > 1
    assert course[-1]["gpufleet_agent_device_events_total"] == 1, "a reported event is not reported again"
