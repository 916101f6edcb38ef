"""NVIDIA GPUs through NVML.

What a device can't tell is found out once and not asked again until NVML is opened anew. Sentinels, all ones where a
number should be, are the same as "not supported" and never leave this module.
"""

import os
import threading
import time
from collections import deque

import pynvml
import structlog

from gpufleet_agent.devices import nvml_mig as mig
from gpufleet_agent.devices import nvml_values as values
from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    DeviceReadError,
    ProcessMemory,
    Reading,
    SlowReading,
    UnknownDeviceError,
)
from gpufleet_agent.devices.nvml_codes import NEVER_SUPPORTED, device_error, opening_error
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_agent.devices.nvml_events import XidEvents, waiting_error
from gpufleet_agent.devices.nvml_links import far_ends, with_peers
from gpufleet_agent.devices.nvml_nodes import device_nodes

_log = structlog.get_logger(__name__)


class NvmlHardware:
    """The node's NVIDIA GPUs: a `Hardware` and an `EventSource`."""

    def __init__(self, *, partitions: bool = False, patience_seconds: float = 5.0, links_seconds: float = 60.0) -> None:
        """Nothing is asked of NVML yet.

        Args:
            partitions: Whether a GPU that is divided by MIG is listed as its partitions. Otherwise it is one device.
            patience_seconds: How long the GPUs may take to tell whether they are divided.
            links_seconds: How often a device is asked what its NVLinks lead to.
        """
        self._partitions = partitions
        self._links_seconds = links_seconds
        self._patience_seconds = patience_seconds
        self._survey: mig.MigLayout | None = None
        self._places: tuple[mig.DeviceAddress, ...] = ()
        self._open = False
        self._devices: dict[str, NvmlDevice] = {}  # replaced, never changed: threads of other devices look at it
        self._lock = threading.Lock()
        self._events: XidEvents | None = None
        self._told: deque[DeviceEvent] = deque()

    def open(self) -> None:
        """See `Hardware.open`."""
        self.close()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        self._open = True
        self._events = XidEvents(lambda: self._devices, self._told)

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

    def device_count(self) -> int:
        """See `Hardware.device_count`."""
        try:
            count: int = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        self._survey = mig.MigLayout(count, patience_seconds=self._patience_seconds) if self._partitions else None
        self._places = tuple(map(mig.DeviceAddress, range(count)) if self._survey is None else self._survey.places())
        return len(self._places)

    def identify(self, slot: int) -> str:
        """See `Hardware.identify`. A device that is lost already doesn't even tell its UUID."""
        place = self._places[slot]
        if self._survey is not None and place.partition is None and not self._survey.is_whole(place.gpu):
            raise DeviceReadError(f"GPU {place.gpu}", "said too late that it is divided: left out until opened anew")
        try:
            handle, gpu = mig.handles(place)
            uuid: str = pynvml.nvmlDeviceGetUUID(handle)
            device = NvmlDevice(uuid, handle, gpu, None if gpu is None else mig.instances(handle))
            parent = None if gpu is None else pynvml.nvmlDeviceGetUUID(gpu)
        except pynvml.NVMLError as error:
            raise device_error(f"GPU {place.gpu}", "handle", error) from error
        device.info = _describe(place.gpu, device, parent)
        self._ask_for_links(device)
        with self._lock:
            self._devices = {**self._devices, uuid: device}
        return uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        """See `Hardware.devices`."""
        ordered = sorted(self._devices.values(), key=lambda device: device.instances or (0, 0))
        known = [(device.info, device.far_ends) for device in ordered if device.info is not None]
        return tuple(sorted(with_peers(known), key=lambda info: info.index))

    def read(self, uuid: str) -> Reading:
        """See `Hardware.read`. Memory is what programs and the driver use, without what the driver reserves."""
        device = self._device(uuid)
        device.answers = False
        memory = device.ask("memory", values.memory)
        load = device.ask("utilization", pynvml.nvmlDeviceGetUtilizationRates)
        ask, extra = device.ask, device.ask_extra
        reading = Reading(
            uuid=uuid,
            memory_total_mib=None if memory is None else values.mib(memory.total),
            memory_used_mib=None if memory is None else values.mib(memory.used),
            # Only where the driver tells reserved memory from used memory.
            memory_reserved_mib=values.mib(memory.reserved) if hasattr(memory, "reserved") else None,
            utilization_percent=None if load is None else values.known(load.gpu),
            memory_utilization_percent=None if load is None else values.known(load.memory),
            temperature_celsius=values.known(ask("temperature", values.temperature)),
            memory_temperature_celsius=values.known(extra("memory temperature", values.memory_temperature)),
            power_milliwatts=values.known(ask("power", pynvml.nvmlDeviceGetPowerUsage)),
            power_limit_milliwatts=values.known(ask("power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)),
            sm_clock_mhz=values.known(extra("SM clock", values.sm_clock)),
            memory_clock_mhz=values.known(extra("memory clock", values.memory_clock)),
            throttle_reasons=values.throttle_reasons(extra("throttle reasons", values.throttling)),
        )
        device.answers = True
        return reading

    def read_slow(self, uuid: str) -> SlowReading:
        """See `Hardware.read_slow`."""
        device = self._device(uuid)
        extra = device.ask_extra
        processes = _processes(device)
        if time.monotonic() - device.links_at >= self._links_seconds:
            self._ask_for_links(device)
        rows = extra("remapped rows", pynvml.nvmlDeviceGetRemappedRows) or (None,) * 4
        return SlowReading(
            uuid=uuid,
            process_count=None if processes is None else len(processes),
            processes=processes,
            encoder_percent=values.first_known(extra("encoder", pynvml.nvmlDeviceGetEncoderUtilization)),
            decoder_percent=values.first_known(extra("decoder", pynvml.nvmlDeviceGetDecoderUtilization)),
            energy_millijoules=values.known(extra("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)),
            pcie_replays=values.known(extra("PCIe replays", pynvml.nvmlDeviceGetPcieReplayCounter)),
            ecc_corrected=values.known(extra("corrected ECC errors", values.ecc_corrected)),
            ecc_uncorrected=values.known(extra("uncorrected ECC errors", values.ecc_uncorrected)),
            remapped_correctable=values.known(rows[0]),
            remapped_uncorrectable=values.known(rows[1]),
            row_remap_pending=values.flag(rows[2]),
            row_remap_failed=values.flag(rows[3]),
            page_retirement_pending=values.flag(
                extra("pending page retirement", pynvml.nvmlDeviceGetRetiredPagesPendingStatus)
            ),
            mig_enabled=values.flag(values.first_known(extra("MIG mode", pynvml.nvmlDeviceGetMigMode))),
        )

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """See `EventSource.wait_event`."""
        events = self._events
        if events is None:
            return None
        try:
            return events.wait(timeout_seconds)
        except pynvml.NVMLError as error:
            raise waiting_error(error) from error

    @staticmethod
    def _ask_for_links(device: NvmlDevice) -> None:
        device.links_at = time.monotonic()
        if device.gpu is None:
            device.far_ends = far_ends(device.handle, device.far_ends)

    def _device(self, uuid: str) -> NvmlDevice:
        device = self._devices.get(uuid)
        if device is None:
            raise UnknownDeviceError(uuid, "NVML lists no such device")
        return device


def _processes(device: NvmlDevice) -> tuple[ProcessMemory, ...] | None:
    """Of both lists; a process that draws and computes is in both, with the same memory. None: not known."""
    if os.getpid() == 1:
        # Alone in a PID namespace of our own, for which the driver lists nobody else's processes and says "none".
        return None
    compute = device.ask("compute processes", pynvml.nvmlDeviceGetComputeRunningProcesses_v3)
    graphics = device.ask("graphics processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3)
    if compute is None:
        return None
    used = {process.pid: process.usedGpuMemory for process in (*(graphics or ()), *compute)}
    return tuple(ProcessMemory(pid, None if size is None else values.mib(size)) for pid, size in sorted(used.items()))


def _describe(index: int, device: NvmlDevice, parent: str | None) -> DeviceInfo:
    # Asked as extras: one odd answer here is not worth the device, which would be left out and looked for without end.
    ask = device.ask_extra
    model: str = ask("name", pynvml.nvmlDeviceGetName) or "unknown"
    minor = ask("minor number", pynvml.nvmlDeviceGetMinorNumber)
    capabilities = mig.capability_nodes(minor, device.instances) if device.instances else ()
    memory = ask("memory", values.memory)
    total = None if memory is None else values.mib(memory.total)
    pci = ask("PCI", pynvml.nvmlDeviceGetPciInfo)
    capability = ask("compute capability", pynvml.nvmlDeviceGetCudaComputeCapability)
    return DeviceInfo(
        uuid=device.uuid,
        index=index,
        model=model,
        architecture=values.ARCHITECTURES.get(ask("architecture", pynvml.nvmlDeviceGetArchitecture)),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        pci_bus_id=None if pci is None else pci.busId,
        numa_node=ask("NUMA node", values.numa_node),
        memory_total_mib=None if total is None else round(total),
        nodes=device_nodes(minor) + capabilities,
        parent=parent,
        profile=mig.profile(model) if parent else None,
    )
