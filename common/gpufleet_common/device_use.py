"""The rule by which a device counts as in use. Agent and operator share it, so both always reach the same result."""

from typing import Final

IDLE_MEMORY_MIB: Final = 512
"""Most memory that an unused device has in use. Decides only where processes are not counted."""


def in_use(process_count: int | None, memory_used_mib: int | None) -> bool:
    """Returns whether a device runs a process, or may run one.

    A process count of 0 is final: the driver itself may use some memory. Without a count, memory in use decides;
    without either, the device counts as in use.

    Args:
        process_count: Processes on the device; None: not counted.
        memory_used_mib: Memory in use; None: unknown.
    """
    if process_count is not None:
        return process_count > 0
    return memory_used_mib is None or memory_used_mib > IDLE_MEMORY_MIB
