"""Reads the kernel's boot ID, by which a reboot of the node is detected."""

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The node's boot ID, also inside a container."""


def read_boot_id(path: Path = BOOT_ID) -> str | None:
    """Returns the ID of the node's current boot; None: unknown."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except OSError:
        return None
