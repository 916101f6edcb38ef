"""Whether anybody's processes may be left on a device: what keeps it from pods that nobody picked it for."""

from gpufleet_agent.devices.base import Sample
from gpufleet_api.names import IDLE_MEMORY_MIB


def in_use(sample: Sample | None) -> bool:
    """Whether a process is on the device, or may be.

    Processes that can't be counted still show in the memory that they use. A device of which neither is known counts as
    used. A count of 0 stands whatever memory is in use, as the driver may use some for itself; so those that the driver
    hides, because the agent doesn't share the host's PID namespace, are missed.

    Args:
        sample: The device's last good one.
    """
    if sample is None:
        return True
    if sample.process_count is not None:
        return sample.process_count > 0
    return sample.memory_used_mib is None or sample.memory_used_mib > IDLE_MEMORY_MIB
