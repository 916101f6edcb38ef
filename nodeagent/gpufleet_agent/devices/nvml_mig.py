"""MIG: GPUs that are divided into partitions, each of which is a device.

A partition has its own UUID, memory and processes. Temperature, ECC errors, the recovery action and the bus address are
those of its GPU. NVML reports no utilization, clocks and power of partitions. A divided GPU has neither utilization nor
remapped rows. Partitions are listed when the driver is opened: after repartitioning a GPU the agent must be restarted,
as NVIDIA's plugin.
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

from gpufleet_agent.devices.nvml_codes import concerns_call

T = TypeVar("T")

log = structlog.get_logger(__name__)

OWN = frozenset({"memory", "name", "compute processes", "graphics processes"})
"""Values that are read from the partition."""

OF_ITS_GPU = frozenset(
    {
        "architecture",
        "compute capability",
        "corrected ECC errors",
        "field values",
        "memory temperature",
        "minor number",
        "NUMA node",
        "PCI",
        "PCIe replays",
        "pending page retirement",
        "recovery action",
        "temperature",
        "throttle reasons",
        "uncorrected ECC errors",
    }
)
"""Values that are read from its GPU instead."""

CAPABILITIES = Path("/proc/driver/nvidia-caps/mig-minors")
"""Maps MIG instances to device nodes."""

_NAME_INFIX = " MIG "


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """How NVML addresses a device."""

    gpu: int
    partition: int | None = None
    """Its index in the GPU; None: the GPU as a whole."""


class MigLayout:
    """Division of the GPUs. Each GPU is queried in its own thread, so that a stuck one does not delay others."""

    def __init__(self, count: int, *, patience_seconds: float) -> None:
        """Queries all GPUs, and waits for the answers.

        Args:
            count: Number of GPUs of the node.
            patience_seconds: Timeout for all of them together.
        """
        self._results = [_in_thread(partial(_addresses, gpu), name=f"mig-{gpu}") for gpu in range(count)]
        wait(self._results, timeout=patience_seconds)
        self._late = frozenset(gpu for gpu, result in enumerate(self._results) if not result.done())

    def addresses(self) -> Iterator[DeviceAddress]:
        """Returns the partitions of divided GPUs, and all other GPUs.

        A GPU whose MIG mode is not known (yet) counts as whole, but may only be used if `is_whole`. A GPU in MIG mode
        without partitions cannot be used, and is not listed.
        """
        for gpu, result in enumerate(self._results):
            unknown = gpu in self._late or isinstance(result.exception(), pynvml.NVMLError)
            yield from [DeviceAddress(gpu)] if unknown else result.result()

    def is_whole(self, gpu: int) -> bool:
        """Returns whether a GPU is really whole. Waits for a late one: only one thread may query a GPU.

        Raises:
            pynvml.NVMLError: Its MIG mode or its partitions could not be read.
        """
        return self._results[gpu].result() == [DeviceAddress(gpu)]


def _in_thread(function: Callable[[], T], name: str) -> Future[T]:
    """Runs a function in a daemon thread: the process would wait for an executor's threads when it ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - passed on to the future
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _addresses(gpu: int) -> list[DeviceAddress]:
    """Returns the partitions of a GPU, or the GPU if it is whole.

    Raises:
        pynvml.NVMLError: It is unknown whether the GPU is divided. A divided GPU must not be used as a whole one.
    """
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu)
    try:
        divided = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        divided = False
    if not divided:
        return [DeviceAddress(gpu)]
    partitions = list(_partitions(handle))
    if not partitions:
        log.warning("GPU in MIG mode without partitions, not listed", gpu=gpu)
    return [DeviceAddress(gpu, partition) for partition in partitions]


def handles(address: DeviceAddress) -> tuple[Any, Any]:
    """Returns the handle of a device, and that of the GPU that it is a partition of, or None.

    Raises:
        pynvml.NVMLError: It does not answer, or is gone.
    """
    gpu = pynvml.nvmlDeviceGetHandleByIndex(address.gpu)
    if address.partition is None:
        return gpu, None
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, address.partition), gpu


def instances(handle: Any) -> tuple[int, int]:
    """Returns GPU instance and compute instance of a partition.

    Raises:
        pynvml.NVMLError: It does not answer, or is gone.
    """
    return pynvml.nvmlDeviceGetGpuInstanceId(handle), pynvml.nvmlDeviceGetComputeInstanceId(handle)


def profile(name: str) -> str | None:
    """Returns the profile, such as `1g.10gb` or `1g.10gb+me`, from a partition's NVML name."""
    _, infix, found = name.partition(_NAME_INFIX)
    return found if infix else None


def capability_nodes(minor: int | None, of: tuple[int, int], capabilities: Path = CAPABILITIES) -> tuple[str, ...]:
    """Returns the device nodes that a container needs for a partition, in addition to those of the GPU.

    Args:
        minor: Minor number of the GPU; None if unknown.
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
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except pynvml.NVMLError_NotFound:
            continue  # indices may have gaps
        except pynvml.NVMLError as error:
            if not concerns_call(error):
                raise
            # Its own identification reports the error. The other partitions can be used.
        yield index
