"""MIG: GPUs that are divided into partitions, each a device to whoever uses it.

A partition has its own UUID, memory and processes. Temperature, faults of the memory and the slot are those of its GPU;
load, clocks and power can't be told apart by NVML and are not reported. Partitions are found when the driver is opened:
whoever divides a GPU anew restarts the agent, as with the vendor's plugin.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pynvml
import structlog

T = TypeVar("T")

_log = structlog.get_logger(__name__)

OWN = frozenset({"memory", "name", "compute processes", "graphics processes"})
"""What a partition itself is asked for."""

OF_ITS_GPU = frozenset(
    {
        "architecture",
        "compute capability",
        "corrected ECC errors",
        "memory temperature",
        "minor number",
        "NUMA node",
        "PCI",
        "PCIe replays",
        "pending page retirement",
        "remapped rows",
        "temperature",
        "throttle reasons",
        "uncorrected ECC errors",
    }
)
"""What its GPU is asked for instead."""

CAPABILITIES = Path("/proc/driver/nvidia-caps/mig-minors")
"""Which device node lets a container use which instance."""

_MARK = " MIG "


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """Where NVML finds a device."""

    gpu: int
    partition: int | None = None
    """Its place in the divided GPU; None: the GPU as a whole."""


class MigLayout:
    """How each GPU of one opening is divided, asked in a thread for each: one that is stuck holds up nobody else."""

    def __init__(self, count: int, *, patience_seconds: float) -> None:
        """Ask, and wait for the answers.

        Args:
            count: GPUs of the node.
            patience_seconds: How long all of them together may take.
        """
        self._answers = [_in_thread(partial(_places, gpu), name=f"mig-{gpu}") for gpu in range(count)]
        wait(self._answers, timeout=patience_seconds)
        self._late = frozenset(gpu for gpu, answer in enumerate(self._answers) if not answer.done())

    def places(self) -> Iterator[DeviceAddress]:
        """The partitions of the GPUs that are divided, and the others as they are.

        A GPU that doesn't answer, or not yet, counts as whole: it will say so itself. One that is divided and has no
        partition yet is of no use to anybody, and left out.
        """
        for gpu, answer in enumerate(self._answers):
            yield from [DeviceAddress(gpu)] if gpu in self._late else answer.result()

    def is_whole(self, gpu: int) -> bool:
        """Whether a GPU that counts as whole is. Waits for one that is late: nobody else may ask it meanwhile."""
        return self._answers[gpu].result() == [DeviceAddress(gpu)]


def _in_thread(function: Callable[[], T], name: str) -> Future[T]:
    """As an executor does, in a daemon: an executor's threads are waited for when the process ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _places(gpu: int) -> list[DeviceAddress]:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(gpu)
        divided = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        partitions = list(_partitions(handle)) if divided else []
    except pynvml.NVMLError:
        return [DeviceAddress(gpu)]
    if not divided:
        return [DeviceAddress(gpu)]
    if not partitions:
        _log.warning("GPU is in MIG mode and has no partitions: left out", gpu=gpu)
    return [DeviceAddress(gpu, partition) for partition in partitions]


def handles(place: DeviceAddress) -> tuple[Any, Any]:
    """The handle of a device, and that of the GPU that it is a partition of, or None.

    Raises:
        pynvml.NVMLError: It doesn't answer, or is there no more.
    """
    gpu = pynvml.nvmlDeviceGetHandleByIndex(place.gpu)
    if place.partition is None:
        return gpu, None
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place.partition), gpu


def instances(handle: Any) -> tuple[int, int]:
    """GPU instance and compute instance of a partition.

    Raises:
        pynvml.NVMLError: It doesn't answer, or is there no more.
    """
    return pynvml.nvmlDeviceGetGpuInstanceId(handle), pynvml.nvmlDeviceGetComputeInstanceId(handle)


def profile(name: str) -> str | None:
    """The partition's profile, such as `1g.10gb` or `1g.10gb+me`, from the name that NVML gives it."""
    _, mark, found = name.partition(_MARK)
    return found if mark else None


def capability_nodes(minor: int | None, of: tuple[int, int], capabilities: Path = CAPABILITIES) -> tuple[str, ...]:
    """Device nodes that a container needs beside those of the GPU to use a partition.

    Args:
        minor: Minor number of the GPU; None: unknown.
        of: GPU instance and compute instance.
        capabilities: The driver's table; without it there are no nodes.
    """
    gpu_instance, compute_instance = of
    wanted = (
        f"gpu{minor}/gi{gpu_instance}/access",
        f"gpu{minor}/gi{gpu_instance}/ci{compute_instance}/access",
    )
    try:
        lines = [line.split() for line in capabilities.read_text(encoding="ascii").splitlines()]
    except OSError:
        return ()
    minors = {words[0]: words[1] for words in lines if len(words) == 2}  # noqa: PLR2004 - name and number
    return tuple(f"/dev/nvidia-caps/nvidia-cap{minors[name]}" for name in wanted if name in minors)


def _partitions(handle: Any) -> Iterator[int]:
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except pynvml.NVMLError_NotFound:
            continue  # places may be empty in between
        yield place
