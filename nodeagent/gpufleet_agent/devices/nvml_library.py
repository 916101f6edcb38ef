"""Loads the driver's management library from the file system of the host or of a driver container."""

import ctypes
from collections.abc import Callable
from pathlib import Path

from gpufleet_agent.devices.base import HardwareUnavailableError

NAME = "libnvidia-ml.so.1"
_MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")
FOLDERS = (
    "lib64",
    "usr/lib64",
    *(f"usr/lib/{arch}" for arch in _MULTIARCH),
    # Debian's links lead through /etc/alternatives, which is not mounted.
    *(f"usr/lib/{arch}/nvidia/current" for arch in _MULTIARCH),
    "usr/lib",
)
"""Where distributions install it. Only this library may come from there: others would need that system's libc."""


def load(root: Path, into_process: Callable[[str], object] = ctypes.CDLL) -> Path:
    """Loads the library into the process, so that the loader returns it for its name, and returns its path.

    Args:
        root: Where the file system is mounted.
        into_process: Loads a library by its path.

    Raises:
        HardwareUnavailableError: It is missing below `root`, or cannot be loaded.
    """
    path = next((path for folder in FOLDERS if (path := root / folder / NAME).exists()), None)
    if path is None:
        raise HardwareUnavailableError(f"NVML: {NAME} not found below {root}: no NVIDIA driver there")
    try:
        into_process(str(path))
    except OSError as error:
        raise HardwareUnavailableError(f"NVML: {path} cannot be loaded: {error}") from error
    return path
