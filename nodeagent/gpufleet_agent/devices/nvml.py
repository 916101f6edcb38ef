"""NVIDIA GPUs through NVML.

A value that a device does not support is queried once, and again only after NVML is reopened.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import structlog

from gpufleet_agent.devices import node_memory, nvml_library
from gpufleet_agent.devices import nvml_mig as mig
from gpufleet_agent.devices import nvml_values as values
from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    DeviceReadError,
    MemoryModel,
    Number,
    ProcessMemory,
    ProcessUtilization,
    Reading,
    SlowReading,
    UnknownDeviceError,
)
from gpufleet_agent.devices.nvml_codes import concerns_driver, describe, device_error, opening_error
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_agent.devices.nvml_events import NvmlEvents, waiting_error
from gpufleet_agent.devices.nvml_links import far_ends, with_peers
from gpufleet_agent.devices.xids.policy import XidPolicy

log = structlog.get_logger(__name__)


def may_use(path: str) -> bool:
    """Returns whether this process may use a device node, also by its cgroup. Does not open the node."""
    return os.access(path, os.R_OK | os.W_OK)


class NvmlHardware:
    """The node's NVIDIA GPUs; implements `Hardware`, `EventSource` and `DeviceNodeUser`."""

    def __init__(
        self,
        *,
        partitions: bool = False,
        patience_seconds: float = 5.0,
        links_seconds: float = 60.0,
        seldom_seconds: float = 0.0,
        xids: XidPolicy = XidPolicy(),  # noqa: B008 - frozen
        may_use: Callable[[str], bool] = may_use,
        library_root: Path | None = None,
    ) -> None:
        """Does not call NVML yet.

        Args:
            partitions: Whether GPUs in MIG mode are listed as their partitions, instead of as one device.
            patience_seconds: How long GPUs may take to report their MIG mode.
            links_seconds: Interval at which a device's NVLinks are read.
            seldom_seconds: Interval at which clocks and the enforced power limit are read. No placement uses them.
            xids: Which XIDs are faults.
            may_use: Returns whether this process may use a device node.
            library_root: File system below which the library is searched; None: the loader finds it.
        """
        self._library_root = library_root
        self._partitions = partitions
        self._xids = xids
        self._may_use = may_use
        self._links_seconds = links_seconds
        self._seldom_seconds = seldom_seconds
        self._patience_seconds = patience_seconds
        self._layout: mig.MigLayout | None = None
        self._addresses: tuple[mig.DeviceAddress, ...] = ()
        self._open = False
        self._version_failed = False
        self._devices: dict[str, NvmlDevice] = {}  # replaced, never changed: other devices' threads read it
        self._lock = threading.Lock()
        self._events: NvmlEvents | None = None
        self._pending_events: deque[DeviceEvent] = deque()

    def open(self) -> None:
        self.close()
        if self._library_root is not None:
            nvml_library.load(self._library_root)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        self._open = True
        self._events = NvmlEvents(lambda: self._devices, self._pending_events, self._xids)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        events, self._events = self._events, None
        self._devices = {}
        # If the event set cannot be freed, NVML must be shut down all the same: an NVML that stays initialized does not
        # list a device that was reset.
        for release in (*(() if events is None else (events.close,)), pynvml.nvmlShutdown):
            try:
                release()
            except pynvml.NVMLError as error:
                # The driver may be gone; then there is nothing left to release.
                log.info("NVML not closed", error=describe(error))

    def driver_version(self) -> str | None:
        try:
            version: str = pynvml.nvmlSystemGetDriverVersion()
        except pynvml.NVMLError as error:
            if concerns_driver(error):
                raise opening_error(error) from error
            # It only describes: the devices can be used without it.
            if not self._version_failed:
                log.warning("driver version not readable", error=describe(error))
            self._version_failed = True
            return None
        self._version_failed = False
        return version

    def device_count(self) -> int:
        try:
            count: int = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise opening_error(error) from error
        self._layout = mig.MigLayout(count, patience_seconds=self._patience_seconds) if self._partitions else None
        self._addresses = tuple(
            map(mig.DeviceAddress, range(count)) if self._layout is None else self._layout.addresses()
        )
        return len(self._addresses)

    def identify(self, index: int) -> str:
        # A device that is lost already does not report its UUID.
        address = self._addresses[index]
        if self._layout is not None and address.partition is None:
            _check_whole(self._layout, address.gpu)
        try:
            handle, gpu = mig.handles(address)
            uuid: str = pynvml.nvmlDeviceGetUUID(handle)
            device = NvmlDevice(uuid, handle, gpu, None if gpu is None else mig.instances(handle))
            parent = None if gpu is None else pynvml.nvmlDeviceGetUUID(gpu)
        except pynvml.NVMLError as error:
            raise device_error(f"GPU {address.gpu}", "handle", error) from error
        device.info = _describe(address.gpu, device, parent)
        self._read_links(device)
        with self._lock:
            self._devices = {**self._devices, uuid: device}
        return uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        ordered = sorted(self._devices.values(), key=lambda device: device.instances or (0, 0))
        known = [(device.info, device.far_ends) for device in ordered if device.info is not None]
        return tuple(sorted(with_peers(known), key=lambda info: info.index))

    def read(self, uuid: str) -> Reading:
        # Memory used by programs and the driver, without the memory that the driver reserves.
        # Everything but the memory is optional: a driver may fail a single call for as long as it runs.
        device = self._device(uuid)
        device.answers = False
        device.begin_reading()
        total, used, reserved = _memory(device)
        optional, seldom, rarely = device.ask_optional, device.ask_seldom, self._seldom_seconds
        load = optional("utilization", pynvml.nvmlDeviceGetUtilizationRates)
        numbered = device.ask_fields(values.FIELDS)
        reading = Reading(
            uuid=uuid,
            memory_total_mib=total,
            memory_used_mib=used,
            memory_reserved_mib=reserved,
            utilization_percent=None if load is None else values.known(load.gpu),
            memory_utilization_percent=None if load is None else values.known(load.memory),
            temperature_celsius=values.known(optional("temperature", values.temperature)),
            memory_temperature_celsius=values.known(numbered.get("memory temperature")),
            power_milliwatts=values.known(optional("power", pynvml.nvmlDeviceGetPowerUsage)),
            power_limit_milliwatts=values.known(seldom("power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit, rarely)),
            sm_clock_mhz=values.known(seldom("SM clock", values.sm_clock, rarely)),
            memory_clock_mhz=values.known(seldom("memory clock", values.memory_clock, rarely)),
            throttle_reasons=values.throttle_reasons(optional("throttle reasons", values.throttling)),
            recovery_action=values.recovery_action(numbered.get("recovery action")),
            unreadable=device.finish_reading(),
        )
        device.answers = True
        return reading

    def read_slow(self, uuid: str) -> SlowReading:
        device = self._device(uuid)
        device.begin_reading()
        optional = device.ask_optional
        processes = _processes(device)
        if time.monotonic() - device.links_at >= self._links_seconds:
            self._read_links(device)
        rows = optional("remapped rows", pynvml.nvmlDeviceGetRemappedRows) or (None,) * 4
        return SlowReading(
            uuid=uuid,
            process_count=None if processes is None else len(processes),
            processes=processes,
            process_utilization=_process_utilization(device),
            encoder_percent=values.first_known(optional("encoder", pynvml.nvmlDeviceGetEncoderUtilization)),
            decoder_percent=values.first_known(optional("decoder", pynvml.nvmlDeviceGetDecoderUtilization)),
            energy_millijoules=values.known(optional("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)),
            pcie_replays=values.known(optional("PCIe replays", pynvml.nvmlDeviceGetPcieReplayCounter)),
            ecc_corrected=values.known(optional("corrected ECC errors", values.ecc_corrected)),
            ecc_uncorrected=values.known(optional("uncorrected ECC errors", values.ecc_uncorrected)),
            remapped_correctable=values.known(rows[0]),
            remapped_uncorrectable=values.known(rows[1]),
            row_remap_pending=values.flag(rows[2]),
            row_remap_failed=values.flag(rows[3]),
            page_retirement_pending=values.flag(
                optional("pending page retirement", pynvml.nvmlDeviceGetRetiredPagesPendingStatus)
            ),
            mig_enabled=values.flag(values.first_known(optional("MIG mode", pynvml.nvmlDeviceGetMigMode))),
            requested_power_limit_milliwatts=values.known(
                optional("requested power limit", pynvml.nvmlDeviceGetPowerManagementLimit)
            ),
            unreadable=device.finish_reading() + (("events",) if device.events_failed else ()),
        )

    def lost_nodes(self) -> tuple[str, ...] | None:
        described = [device.info for device in self._devices.values() if device.info is not None]
        nodes = {node for info in described for node in info.nodes if values.is_gpu_node(node)}
        return tuple(node for node in sorted(nodes) if not self._may_use(node)) if nodes else None

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        events = self._events
        if events is None:
            return None
        try:
            return events.wait(timeout_seconds)
        except pynvml.NVMLError as error:
            raise waiting_error(error) from error

    @staticmethod
    def _read_links(device: NvmlDevice) -> None:
        device.links_at = time.monotonic()
        if device.gpu is None:
            device.far_ends = far_ends(device.handle, device.far_ends)

    def _device(self, uuid: str) -> NvmlDevice:
        device = self._devices.get(uuid)
        if device is None:
            raise UnknownDeviceError(uuid, "no such device in NVML")
        return device


def _check_whole(layout: mig.MigLayout, gpu: int) -> None:
    """Raises a `HardwareError` unless the GPU is known not to be divided."""
    try:
        whole = layout.is_whole(gpu)
    except pynvml.NVMLError as error:
        raise device_error(f"GPU {gpu}", "MIG mode", error) from error
    if not whole:
        raise DeviceReadError(f"GPU {gpu}", "MIG mode reported too late")


def _processes(device: NvmlDevice) -> tuple[ProcessMemory, ...] | None:
    """Returns compute and graphics processes; None if unknown. A process in both lists has the same memory in both."""
    if os.getpid() == 1:
        # In a PID namespace of its own, for which the driver lists no processes of other namespaces.
        return None
    compute = device.ask_optional("compute processes", pynvml.nvmlDeviceGetComputeRunningProcesses_v3)
    graphics = device.ask_optional("graphics processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3)
    if compute is None:
        return None
    used = {process.pid: process.usedGpuMemory for process in (*(graphics or ()), *compute)}
    return tuple(ProcessMemory(pid, None if size is None else values.mib(size)) for pid, size in sorted(used.items()))


def _process_utilization(device: NvmlDevice) -> tuple[ProcessUtilization, ...] | None:
    """Returns the mean utilization of each process since the last call; None if unknown."""
    if os.getpid() == 1:
        return None  # as above

    def read(handle: Any) -> Any:
        try:
            return pynvml.nvmlDeviceGetProcessUtilization(handle, device.utilization_since)
        except pynvml.NVMLError_NotFound:
            return ()  # no process has run since

    samples = device.ask_optional("process utilization", read)
    if samples is None:
        return None
    device.utilization_since = max((sample.timeStamp for sample in samples), default=device.utilization_since)
    found: dict[int, list[int]] = {}
    for sample in samples:
        found.setdefault(sample.pid, []).append(sample.smUtil)
    return tuple(ProcessUtilization(pid, sum(parts) / len(parts)) for pid, parts in sorted(found.items()))


def _memory(device: NvmlDevice) -> tuple[Number | None, Number | None, Number | None]:
    """Returns the total, used and reserved memory in MiB; None each if it is not reported.

    Raises:
        HardwareError: As `Hardware.read`.
    """
    if device.info is not None and device.info.memory_model is MemoryModel.UNIFIED:
        return (*node_memory.read(), None)
    return values.memory_mib(device.ask("memory", values.memory))


def _memory_model(device: NvmlDevice, memory: Any) -> MemoryModel | None:
    if memory is None:
        unified = device.unsupported.get("memory") == pynvml.NVML_ERROR_NOT_SUPPORTED
    else:
        unified = memory.total == 0
    if unified and device.gpu is None:
        return MemoryModel.UNIFIED
    node = device.ask_optional("memory NUMA node", pynvml.nvmlDeviceGetNumaNodeId)
    return None if values.known(node) is None else MemoryModel.NUMA


def _describe(index: int, device: NvmlDevice, parent: str | None) -> DeviceInfo:
    # Read as optional values: a failed descriptive call must not drop the device.
    ask = device.ask_optional
    model: str = ask("name", pynvml.nvmlDeviceGetName) or "unknown"
    minor = ask("minor number", pynvml.nvmlDeviceGetMinorNumber)
    capabilities = mig.capability_nodes(minor, device.instances) if device.instances else ()
    memory = ask("memory", values.memory)
    model_of_memory = _memory_model(device, memory)
    total = node_memory.read()[0] if model_of_memory is MemoryModel.UNIFIED else values.memory_mib(memory)[0]
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
        memory_model=model_of_memory,
        nodes=values.device_nodes(minor) + capabilities,
        parent=parent,
        profile=mig.profile(model) if parent else None,
        gpu_instance=None if device.instances is None else device.instances[0],
    )
