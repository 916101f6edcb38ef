"""Agent and operator judge alike whether a device may be in use: what one offers, the other never gives away."""

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.plugin.foreign_processes import in_use
from gpufleet_api.names import MemoryModel
from gpufleet_common.device_use import IDLE_MEMORY_MIB
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, PodNeeds, Request, Share

MEMORY = st.none() | st.integers(IDLE_MEMORY_MIB - 2, IDLE_MEMORY_MIB + 2) | st.integers(0, 80_000)
PROCESSES = st.none() | st.integers(0, 2)


@given(
    memory=MEMORY,
    processes=PROCESSES,
    share=st.none() | st.just(Share(compute_percent=10)),
    busy=st.integers(0, 2),
    model=st.none() | st.sampled_from(MemoryModel),
)
def test_operator_places_on_devices_that_the_agent_calls_unused(
    memory: int | None, processes: int | None, share: Share | None, busy: int, model: MemoryModel | None
) -> None:
    device = DeviceState(
        "GPU-0",
        0,
        "H100",
        80_000,
        memory,
        busy,
        40,
        process_count=processes,
        sample_age_seconds=1.0,
        memory_model=model,
    )
    fleet = Fleet.of([NodeState("a", (device,), free_cpu_milli=1_000, free_memory_bytes=2**30, free_pods=10)])
    request = Request("ml/train", (0,), DeviceNeeds(1, share), PodNeeds())
    sample = Sample(
        uuid="GPU-0", taken_at=1.0, memory_used_mib=memory, process_count=processes, utilization_percent=busy
    )
    assert bool(place(fleet, request).picks) is not in_use(sample, model)
