"""What the agent asks of a node's GPUs, in no vendor's words.

Every call may block for as long as the driver pleases, so only the sampler calls, from threads of its own. Each
implementation must allow calls for different devices at the same time from different threads.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


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

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the hardware answered, not yet validated. `None`: not reported."""

    uuid: str
    memory_total_mib: Number | None = None
    memory_used_mib: Number | None = None
    utilization_percent: Number | None = None
    memory_utilization_percent: Number | None = None
    temperature_celsius: Number | None = None
    power_milliwatts: Number | None = None
    power_limit_milliwatts: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReading:
    """Facts that cost milliseconds to get and are asked for more rarely. `None`: not reported."""

    uuid: str
    process_count: Number | None = None
    """Processes that hold a context on the device, whoever started them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One validated reading of one device at one instant. `None`: the hardware doesn't report the value."""

    uuid: str
    taken_at: float
    """Seconds since the epoch, by the node's clock."""
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    process_count: int | None = None
    """From the last slow reading, which may be some seconds older than the rest."""


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

    def slots(self) -> int:
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
        """The devices identified since `open()`, in index order: from memory, never blocks."""

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

        Called from one thread only. Raises as `Hardware.slots` does.
        """


class HardwareError(Exception):
    """The hardware could not answer."""


class HardwareUnavailableError(HardwareError):
    """No driver answers: not loaded, or being restarted. Worth trying again later."""


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
