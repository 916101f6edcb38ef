"""What the agent asks of a node's GPUs, in no vendor's words.

Every call may block for as long as the driver pleases, so only the sampler calls, from threads of its own. Each
implementation must allow calls for different devices at the same time from different threads.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gpufleet_api.names import ThrottleReason as ThrottleReason  # noqa: PLC0414 - a word of the Protocol, too


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What doesn't change while a device is in its slot. `None`: the hardware doesn't say."""

    uuid: str
    index: int
    model: str
    architecture: str | None = None
    compute_capability: str | None = None
    """Such as `9.0`."""
    pci_bus_id: str | None = None
    numa_node: int | None = None
    nvlink_peers: tuple[str, ...] = ()
    """UUIDs of the devices of this node that a direct link reaches, sorted."""
    memory_total_mib: int | None = None
    nodes: tuple[str, ...] = ()
    """Paths of the device nodes that a container needs to use it; not each of them need exist on every node."""
    parent: str | None = None
    """UUID of the device that this one is a partition of. The parent itself is not listed then."""
    profile: str | None = None
    """What kind of partition it is, in the vendor's words."""


Number = int | float


class Recovery(StrEnum):
    """What ends a fault."""

    AUTOMATIC = "Automatic"
    """Nothing needs to be done: it goes when what it was seen by is seen no longer."""
    RESET = "Reset"
    """The device must be reset, its driver reloaded, or the node rebooted."""
    REPLACEMENT = "Replacement"
    """The device must be exchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the hardware answered, not yet validated. `None`: not reported."""

    uuid: str
    memory_total_mib: Number | None = None
    memory_used_mib: Number | None = None
    memory_reserved_mib: Number | None = None
    """What the driver keeps for itself, beside `memory_used_mib`."""
    utilization_percent: Number | None = None
    memory_utilization_percent: Number | None = None
    temperature_celsius: Number | None = None
    memory_temperature_celsius: Number | None = None
    power_milliwatts: Number | None = None
    power_limit_milliwatts: Number | None = None
    sm_clock_mhz: Number | None = None
    memory_clock_mhz: Number | None = None
    throttle_reasons: frozenset[ThrottleReason] | None = None


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """A process that holds a context on a device, and how much of the device's memory it uses."""

    pid: int
    """In the host's numbering."""
    memory_mib: Number | None
    """`None`: not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReading:
    """Facts that cost milliseconds to get and are asked for more rarely. `None`: not reported."""

    uuid: str
    process_count: Number | None = None
    """Processes that hold a context on the device, whoever started them."""
    processes: tuple[ProcessMemory, ...] | None = None
    """The same one by one, in order of their numbers."""
    encoder_percent: Number | None = None
    decoder_percent: Number | None = None
    energy_millijoules: Number | None = None
    """Drawn since the driver was loaded."""
    pcie_replays: Number | None = None
    """Since the driver was loaded."""
    ecc_corrected: Number | None = None
    """Memory errors since the driver was loaded or the device was reset."""
    ecc_uncorrected: Number | None = None
    remapped_correctable: Number | None = None
    """Rows of memory that were replaced for good, by the kind of error that showed them to be bad."""
    remapped_uncorrectable: Number | None = None
    row_remap_pending: bool | None = None
    """A row will be replaced at the next reset."""
    row_remap_failed: bool | None = None
    """There is no spare row left for a bad one."""
    page_retirement_pending: bool | None = None
    """A page of memory will be taken out of use at the next reset."""
    mig_enabled: bool | None = None
    """Whether the device is divided into instances. None: it can't be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A validated slow reading. `None`: not reported."""

    process_count: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Facts):
    """One validated reading of one device at one instant. `None`: the hardware doesn't report the value.

    The facts are those of the last slow reading, which may be some seconds older than the rest.
    """

    uuid: str
    taken_at: float
    """Seconds since the epoch, by the node's clock."""
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


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something that a device reported by itself."""

    uuid: str | None
    """None: the hardware couldn't say which device, so it may be any of them."""
    kind: str
    """CamelCase, the code of the health reason that it gives: `XidError`."""
    code: int
    message: str
    fault: bool
    """False: an application's own doing. Counted, and no reason to call the device unhealthy."""
    recovery: Recovery = Recovery.AUTOMATIC
    """What ends the fault."""


class Hardware(Protocol):
    """The GPUs of this node."""

    def open(self) -> None:
        """Get ready to answer.

        Raises:
            HardwareUnavailableError: No driver is loaded, or none that answers: try again later.
            LibraryMismatchError: Only a new process can help.
        """

    def close(self) -> None:
        """Let go of everything. Harmless when not open."""

    def driver_version(self) -> str | None:
        """The driver's version, or None when the hardware doesn't say."""

    def device_count(self) -> int:
        """How many devices the driver counts, whether they answer or not. 0 on a node without any.

        Raises:
            HardwareUnavailableError: The driver went away.
        """

    def identify(self, slot: int) -> str:
        """Find out what is in a slot, 0 to `slots() - 1`; returns its UUID. Each slot is asked in its own thread.

        Raises:
            DeviceError: The device didn't answer; it has no UUID then, and the error names its slot.
            HardwareUnavailableError: The driver went away.
        """

    def devices(self) -> tuple[DeviceInfo, ...]:
        """The devices identified since `open()`, in index order: from memory, never blocks.

        May change as devices are read: a link that failed leads to nobody any more.
        """

    def read(self, uuid: str) -> Reading:
        """Read what is cheap to read.

        Raises:
            UnknownDeviceError: No such device was identified since `open()`.
            DeviceError: The device didn't answer; the subclass says why.
            HardwareUnavailableError: The driver went away.
        """

    def read_slow(self, uuid: str) -> SlowReading:
        """Read what takes longer. Raises as `read` does."""


@runtime_checkable
class EventSource(Protocol):
    """Hardware that reports faults by itself."""

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        """Block until a device reports something; None after the timeout, or when events aren't supported.

        Called from one thread only. Raises as `Hardware.device_count` does.
        """


class HardwareError(Exception):
    """The hardware could not answer."""


class HardwareUnavailableError(HardwareError):
    """No driver answers: not loaded, or being restarted. Worth trying again later."""


class DriverNotLoadedError(HardwareUnavailableError):
    """The driver says itself that it isn't loaded, or was loaded anew: whatever comes back from this was reset."""


class ProcessMustRestartError(HardwareError):
    """Nothing that this process does can help; a new container may."""


class LibraryMismatchError(ProcessMustRestartError):
    """The driver was upgraded beneath the library that this process has mapped."""


class AccessLostError(ProcessMustRestartError):
    """This container lost its device nodes, as happens after `systemctl daemon-reload`."""


class DeviceError(HardwareError):
    """One device could not answer. Carries its UUID."""

    def __init__(self, uuid: str, message: str) -> None:
        super().__init__(f"{uuid}: {message}")
        self.uuid = uuid
        self.message = message


class UnknownDeviceError(DeviceError):
    """Nobody registered a device of that UUID."""


class DeviceLostError(DeviceError):
    """The device fell off the bus."""


class DeviceResetRequiredError(DeviceError):
    """The device must be reset before it can be used."""


class DeviceReadError(DeviceError):
    """The device answered with an error of no special meaning."""


class DeviceAccessError(DeviceReadError):
    """An error that a single device may have, and that all have once the container lost its device nodes."""
