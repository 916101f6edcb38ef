"""NVIDIA GPUs through NVML.

What a device can't tell is found out once and not asked again until NVML is opened anew. Sentinels, all ones where a
number should be, are the same as "not supported" and never leave this module.
"""

import threading
from types import MappingProxyType
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    Number,
from gpufleet_agent.devices.nvml_nodes import device_nodes
    Reading,
    SlowReading,
    UnknownDeviceError,
)
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, device_error, opening_error
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_agent.devices.nvml_events import XidEvents, waiting_error
from gpufleet_agent.devices.nvml_links import far_ends, with_peers

_log = structlog.get_logger(__name__)

_MIB = 2**20
_NUMA_WORDS = 16
"""Room for 1024 NUMA nodes."""
_SENTINELS = frozenset({-1, 2**32 - 1, 2**64 - 1})
"""NVML_VALUE_NOT_AVAILABLE, as it looks in each of NVML's integers."""

_ARCHITECTURES = MappingProxyType(
    {
        pynvml.NVML_DEVICE_ARCH_KEPLER: "Kepler",
        pynvml.NVML_DEVICE_ARCH_MAXWELL: "Maxwell",
        pynvml.NVML_DEVICE_ARCH_PASCAL: "Pascal",
        pynvml.NVML_DEVICE_ARCH_VOLTA: "Volta",
        pynvml.NVML_DEVICE_ARCH_TURING: "Turing",
        pynvml.NVML_DEVICE_ARCH_AMPERE: "Ampere",
        pynvml.NVML_DEVICE_ARCH_ADA: "Ada",
        pynvml.NVML_DEVICE_ARCH_HOPPER: "Hopper",
        pynvml.NVML_DEVICE_ARCH_BLACKWELL: "Blackwell",
        pynvml.NVML_DEVICE_ARCH_RUBIN: "Rubin",
    }
)


class NvmlHardware:
    """The node's NVIDIA GPUs: a `Hardware` and an `EventSource`."""

    def __init__(self) -> None:
        self._open = False
        self._devices: dict[str, NvmlDevice] = {}  # replaced, never changed: threads of other devices look at it
        self._lock = threading.Lock()
        self._events: XidEvents | None = None

    def open(self) -> None:
        """See `Hardware.open`."""
        self.close()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        self._open = True
        self._events = XidEvents(lambda: self._devices)

    def close(self) -> None:
        """See `Hardware.close`."""
        if not self._open:
            return
        self._open = False
        events, self._events = self._events, None
        self._devices = {}
        try:
            if events is not None:
                events.close()
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # The driver may be the one that has gone; there is nothing left to let go of then.
            _log.info("closing NVML failed", error=str(error))

    def driver_version(self) -> str | None:
        """See `Hardware.driver_version`."""
        try:
            version: str = pynvml.nvmlSystemGetDriverVersion()
        except pynvml.NVMLError as error:
            if error.value in NEVER_SUPPORTED:
                return None
            raise opening_error(error) from error
        return version

    def slots(self) -> int:
        """See `Hardware.slots`."""
        try:
            count: int = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        return count

    def identify(self, slot: int) -> str:
        """See `Hardware.identify`. A device that is lost already doesn't even tell its UUID."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(slot)
            uuid: str = pynvml.nvmlDeviceGetUUID(handle)
        except pynvml.NVMLError as error:
            raise device_error(f"GPU {slot}", "handle", error) from error
        device = NvmlDevice(uuid, handle)
        device.info = _describe(slot, device)
        device.far_ends = far_ends(handle)
        with self._lock:
            self._devices = {**self._devices, uuid: device}
        return uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        """See `Hardware.devices`."""
        known = [(device.info, device.far_ends) for device in self._devices.values() if device.info is not None]
        return tuple(sorted(with_peers(known), key=lambda info: info.index))

    def read(self, uuid: str) -> Reading:
        """See `Hardware.read`. Memory is what programs and the driver use, without what the driver reserves."""
        device = self._device(uuid)
        device.answers = False
        memory = device.ask("memory", _memory)
        load = device.ask("utilization", pynvml.nvmlDeviceGetUtilizationRates)
        reading = Reading(
            uuid=uuid,
            memory_total_mib=None if memory is None else _mib(memory.total),
            memory_used_mib=None if memory is None else _mib(memory.used),
            utilization_percent=None if load is None else _known(load.gpu),
            memory_utilization_percent=None if load is None else _known(load.memory),
            temperature_celsius=_known(device.ask("temperature", _temperature)),
            power_milliwatts=_known(device.ask("power", pynvml.nvmlDeviceGetPowerUsage)),
            power_limit_milliwatts=_known(device.ask("power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)),
        )
        device.answers = True
        return reading

    def read_slow(self, uuid: str) -> SlowReading:
        """See `Hardware.read_slow`."""
        device = self._device(uuid)
        compute = device.ask("compute processes", pynvml.nvmlDeviceGetComputeRunningProcesses_v3)
        graphics = device.ask("graphics processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3)
        if compute is None:
            return SlowReading(uuid=uuid)
        return SlowReading(uuid=uuid, process_count=len({process.pid for process in (*compute, *(graphics or ()))}))

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """See `EventSource.wait_event`."""
        events = self._events
        if events is None:
            return None
        try:
            return events.wait(timeout_seconds)
        except pynvml.NVMLError as error:
            raise waiting_error(error) from error

    def _device(self, uuid: str) -> NvmlDevice:
        device = self._devices.get(uuid)
        if device is None:
            raise UnknownDeviceError(uuid, "NVML lists no such device")
        return device


def _describe(index: int, device: NvmlDevice) -> DeviceInfo:
    memory = device.ask("memory", _memory)
    total = None if memory is None else _mib(memory.total)
    pci = device.ask("PCI", pynvml.nvmlDeviceGetPciInfo)
    capability = device.ask("compute capability", pynvml.nvmlDeviceGetCudaComputeCapability)
    return DeviceInfo(
        uuid=device.uuid,
        index=index,
        model=device.ask("name", pynvml.nvmlDeviceGetName) or "unknown",
        architecture=_ARCHITECTURES.get(device.ask("architecture", pynvml.nvmlDeviceGetArchitecture)),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        pci_bus_id=None if pci is None else pci.busId,
        numa_node=device.ask("NUMA node", _numa_node),
        nodes=device_nodes(device.ask("minor number", pynvml.nvmlDeviceGetMinorNumber)),
        memory_total_mib=None if total is None else round(total),
    )


def _memory(handle: Any) -> Any:
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetMemoryInfo(handle)  # drivers before 510, which count reserved as used


def _temperature(handle: Any) -> Any:
    try:
        return pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)  # drivers before 560


def _numa_node(handle: Any) -> int | None:
    """The one NUMA node nearest to the device. Several, or none, is none."""
    words = pynvml.nvmlDeviceGetMemoryAffinity(handle, _NUMA_WORDS, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    return nodes[0] if len(nodes) == 1 else None


def _known(value: Any) -> Number | None:
    return None if value is None or value in _SENTINELS else value


def _mib(size: int) -> Number | None:
    known = _known(size)
    return None if known is None else known / _MIB
