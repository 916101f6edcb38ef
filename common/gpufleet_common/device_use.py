"""The rule by which a device counts as in use. Agent and operator share it, so both always reach the same result."""

from typing import Final

IDLE_MEMORY_MIB: Final = 512
"""Most memory that an unused device has in use. Decides only where processes are not counted."""


def in_use(
    process_count: int | None,
    memory_used_mib: int | None,
    utilization_percent: int | None = None,
    *,
    own_memory: bool = True,
) -> bool:
    """Returns whether a device runs a process, or may run one.

    A process count of 0 is final: the driver itself may use some memory. Without a count, memory in use decides; where
    the memory is not the device's own, others use it too, and utilization decides. Without these, the device counts as
    in use.

    Args:
        process_count: Processes on the device; None: not counted.
        memory_used_mib: Memory in use; None: unknown.
        utilization_percent: Compute utilization; None: unknown.
        own_memory: Whether only the device uses its memory.
    """
    if process_count is not None:
        return process_count > 0
    if own_memory:
        return memory_used_mib is None or memory_used_mib > IDLE_MEMORY_MIB
    return utilization_percent is None or utilization_percent > 0
