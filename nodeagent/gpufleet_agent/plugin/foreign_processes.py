"""Detects processes that may be left on a device, which excludes it from pods without a reservation."""

from gpufleet_agent.devices.base import MemoryModel, Sample
from gpufleet_common import device_use


def in_use(sample: Sample | None, memory_model: MemoryModel | None = None) -> bool:
    """Returns whether the device runs a process, or may run one.

    Processes that the driver hides are missed: it counts 0 where the agent does not share the host's PID namespace.

    Args:
        sample: The device's last good sample; None: the device counts as in use.
        memory_model: Of the device; None: the memory is its own.
    """
    return sample is None or device_use.in_use(
        sample.process_count, sample.memory_used_mib, sample.utilization_percent, own_memory=memory_model is None
    )
