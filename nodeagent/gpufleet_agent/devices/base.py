"""Vendor-neutral interface to a node's GPUs.

Every call may block for as long as the driver takes, so only the sampler calls it, from threads of its own.
Implementations must allow concurrent calls for different devices.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gpufleet_api.names import MemoryModel as MemoryModel  # noqa: PLC0414 - re-exported
from gpufleet_api.names import ThrottleReason as ThrottleReason  # noqa: PLC0414 - re-exported


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Description of a device; constant while it is installed. `None`: not reported."""

    uuid: str
    index: int
    model: str
    architecture: str | None = None
    compute_capability: str | None = None
    """Such as `9.0`."""
    pci_bus_id: str | None = None
    numa_node: int | None = None
    nvlink_peers: tuple[str, ...] = ()
    """UUIDs of the devices of this node that are connected by NVLink, sorted."""
    memory_total_mib: int | None = None
    memory_model: MemoryModel | None = None
    """None: the memory is the device's own."""
    nodes: tuple[str, ...] = ()
    """Paths of the device nodes that a container needs; not all of them exist on every node."""
    parent: str | None = None
    """UUID of the GPU that this device is a partition of. The GPU itself is not listed then."""
    profile: str | None = None
    """Profile of the partition, such as `1g.10gb`."""
    gpu_instance: int | None = None
    """ID of the partition's GPU instance on its GPU."""


Number = int | float


class Recovery(StrEnum):
    """What ends a fault. Values of `recovery` in GPUTelemetry."""

    AUTOMATIC = "Automatic"
    """No action: it ends when it is no longer observed."""
    RESET = "Reset"
    """The device must be reset, its driver reloaded, or the node rebooted."""
    REBOOT = "Reboot"
    """The node must be rebooted."""
    REPLACEMENT = "Replacement"
    """The device must be replaced."""


class RecoveryAction(StrEnum):
    """Recovery action that the driver reports for a device."""

    NONE = "None"
    RESET = "Reset"
    DRAIN_AND_RESET = "DrainAndReset"
    """The device works at reduced capacity until its programs have ended and it was reset."""
    BUS_RESET = "BusReset"
    DRAIN_PEERS = "DrainPeers"
    """Programs that access other devices must end before the driver knows more."""
    REBOOT = "Reboot"
    """Of the node or the whole system."""
    RECOVER_DOMAIN = "RecoverDomain"
    """The memory domain of several nodes must recover. The device itself works."""
    UNKNOWN = "Unknown"
    """An action of a later driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Values as read, not yet validated. `None`: not reported."""

    uuid: str
    memory_total_mib: Number | None = None
    memory_used_mib: Number | None = None
    memory_reserved_mib: Number | None = None
    """Reserved by the driver, in addition to `memory_used_mib`."""
    utilization_percent: Number | None = None
    memory_utilization_percent: Number | None = None
    temperature_celsius: Number | None = None
    memory_temperature_celsius: Number | None = None
    power_milliwatts: Number | None = None
    power_limit_milliwatts: Number | None = None
    sm_clock_mhz: Number | None = None
    memory_clock_mhz: Number | None = None
    throttle_reasons: frozenset[ThrottleReason] | None = None
    recovery_action: RecoveryAction | None = None
    unreadable: tuple[str, ...] = ()
    """Values that the device has and whose call failed this time."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """A process with a context on a device, and the device memory it uses."""

    pid: int
    """In the host's PID namespace."""
    memory_mib: Number | None
    """`None`: not reported."""


@dataclass(frozen=True, slots=True)
class ProcessUtilization:
    """A process that has used a device since the last slow reading, and its part of the device's utilization."""

    pid: int
    """In the host's PID namespace."""
    percent: Number | None
    """`None`: not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReading:
    """Values that take milliseconds to read and are read less often. `None`: not reported."""

    uuid: str
    process_count: Number | None = None
    """All processes with a context on the device, of containers or not."""
    processes: tuple[ProcessMemory, ...] | None = None
    """Sorted by PID."""
    process_utilization: tuple[ProcessUtilization, ...] | None = None
    """Sorted by PID. Empty: no process has used the device."""
    encoder_percent: Number | None = None
    decoder_percent: Number | None = None
    energy_millijoules: Number | None = None
    """Since the driver was loaded."""
    pcie_replays: Number | None = None
    """Since the driver was loaded."""
    ecc_corrected: Number | None = None
    """Memory errors since the driver was loaded or the device was reset."""
    ecc_uncorrected: Number | None = None
    remapped_correctable: Number | None = None
    """Memory rows remapped because of correctable errors."""
    remapped_uncorrectable: Number | None = None
    row_remap_pending: bool | None = None
    """A row will be remapped at the next reset."""
    row_remap_failed: bool | None = None
    """A row could not be remapped: no spare row is left."""
    page_retirement_pending: bool | None = None
    """A memory page will be retired at the next reset."""
    mig_enabled: bool | None = None
    """None: the device does not support MIG."""
    requested_power_limit_milliwatts: Number | None = None
    """As set by an administrator; the enforced limit may be lower."""
    unreadable: tuple[str, ...] = ()
    """Values that the device has and whose call failed this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A validated slow reading. `None`: not reported."""

    process_count: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None
    process_utilization: tuple[ProcessUtilization, ...] | None = None
    encoder_percent: int | None = None
    decoder_percent: int | None = None
    energy_millijoules: int | None = None
    pcie_replays: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    row_remap_pending: bool | None = None
    row_remap_failed: bool | None = None
    page_retirement_pending: bool | None = None
    mig_enabled: bool | None = None
    requested_power_limit_milliwatts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Facts):
    """A validated reading of one device. `None`: not reported.

    The facts are those of the last slow reading, which may be some seconds older.
    """

    uuid: str
    taken_at: float
    """Seconds since the epoch."""
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_reserved_mib: int | None = None
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    temperature_celsius: int | None = None
    memory_temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: frozenset[ThrottleReason] | None = None
    recovery_action: RecoveryAction | None = None


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """An event that a device reported."""

    uuid: str | None
    """None: the hardware did not report which device, so it may be any."""
    kind: str
    """Code of the health reason, such as `XidError`."""
    code: int
    message: str
    fault: bool
    """False if an application caused it: counted, but no fault."""
    recovery: Recovery = Recovery.AUTOMATIC
    """What ends the fault."""
    warning: str | None = None
    """Code of the warning that it causes instead of a fault, if any."""
    contained: bool = False
    """An uncorrected memory error that affects only programs that run now."""


class Hardware(Protocol):
    """The GPUs of this node."""

    def open(self) -> None:
        """Opens the driver.

        Raises:
            HardwareUnavailableError: No driver is loaded, or it does not answer; worth retrying.
            LibraryMismatchError: Only a new process can help.
        """

    def close(self) -> None:
        """Releases everything. Has no effect if not open."""

    def driver_version(self) -> str | None:
        """Returns the driver's version; None if not reported.

        Raises:
            HardwareUnavailableError: The driver is gone.
            LibraryMismatchError: Only a new process can help.
        """

    def device_count(self) -> int:
        """Returns the number of devices, whether they answer or not.

        Raises:
            HardwareUnavailableError: The driver is gone.
        """

    def identify(self, index: int) -> str:
        """Returns the UUID of a device. Called from the device's own thread.

        Args:
            index: 0 to `device_count() - 1`.

        Raises:
            DeviceError: The device did not answer; the error has its index instead of its UUID.
            HardwareUnavailableError: The driver is gone.
        """

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Returns the devices identified since `open()`, sorted by index. Never blocks.

        May change as devices are read: a failed link no longer has a peer.
        """

    def read(self, uuid: str) -> Reading:
        """Reads the values that are cheap to read.

        Raises:
            UnknownDeviceError: No such device was identified since `open()`.
            DeviceError: The device did not answer; the subclass has the reason.
            HardwareUnavailableError: The driver is gone.
        """

    def read_slow(self, uuid: str) -> SlowReading:
        """Reads the values that take longer. Raises as `read` does."""


@runtime_checkable
class EventSource(Protocol):
    """Hardware that reports events."""

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """Blocks until a device reports an event; None after the timeout, or if events are not supported.

        Called from one thread only. Raises as `Hardware.device_count` does.
        """


@runtime_checkable
class DeviceNodeUser(Protocol):
    """Hardware that is reached by device nodes."""

    def lost_nodes(self) -> tuple[str, ...] | None:
        """Returns the device nodes that this process may not use; None: not known. Never blocks."""


class HardwareError(Exception):
    """The hardware did not answer."""


class HardwareUnavailableError(HardwareError):
    """No driver answers: not loaded, or being reloaded. Worth retrying."""


class DriverNotLoadedError(HardwareUnavailableError):
    """The driver reports that it is not loaded, or was reloaded: devices that come back from this were reset."""


class ProcessMustRestartError(HardwareError):
    """Only a new process, or a new container, can help."""


class LibraryMismatchError(ProcessMustRestartError):
    """The driver was upgraded and does not match the library that this process has loaded."""


class AccessLostError(ProcessMustRestartError):
    """This container lost its device nodes, as after `systemctl daemon-reload`."""


class DeviceError(HardwareError):
    """One device did not answer."""

    def __init__(self, uuid: str, message: str) -> None:
        super().__init__(f"{uuid}: {message}")
        self.uuid = uuid
        self.message = message


class UnknownDeviceError(DeviceError):
    """No device of that UUID is registered."""


class DeviceLostError(DeviceError):
    """The device fell off the bus."""


class DeviceResetRequiredError(DeviceError):
    """The device must be reset before it can be used."""


class DeviceReadError(DeviceError):
    """The device answered with an unspecific error."""


class DeviceAccessError(DeviceReadError):
    """An error that one device may have, and that all have if the container lost its device nodes."""
