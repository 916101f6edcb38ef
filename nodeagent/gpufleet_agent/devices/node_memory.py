"""Reads the node memory, which GPUs with unified memory use."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
"""The node memory, also inside a container."""

_KIB_PER_MIB = 1024


def read() -> tuple[float | None, float | None]:
    """Returns the total and the used memory in MiB; None each if unknown. What the kernel can free is not used."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    sizes = {name: size.split() for name, _, size in (line.partition(":") for line in lines)}
    try:
        total, available = (int(sizes[name][0]) / _KIB_PER_MIB for name in ("MemTotal", "MemAvailable"))
    except (KeyError, IndexError, ValueError):
        return None, None
    return total, max(0.0, total - available)
