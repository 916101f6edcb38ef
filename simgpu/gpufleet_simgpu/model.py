"""A node of simulated GPUs as plain values. None means not supported by the hardware; `text` describes the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

NOT_AVAILABLE = -1
"""Value of a number: NVML's sentinel, all ones, which a driver returns instead of an error."""

GPU_IS_LOST = 15
XID_EVENT = 0x8
UNAVAILABLE_EVENT = 0x4000
RECOVERY_EVENT = 0x8000
"""NVML's event types."""

MAX_GPUS = 64
MAX_XIDS = 256
ALL = "all"
"""Key in `fail` and `delay`: every call about the device."""

SWITCH = "switch"
"""Remote end of links: an NVSwitch."""


@dataclass(frozen=True, slots=True)
class SimProcess:
    """A process on a GPU. `kind` is C for compute or G for graphics."""

    pid: int
    memory_mib: int
    kind: str = "C"
    gpu_instance: int | None = None
    """The GPU instance in which it runs, on a partitioned GPU."""
    sm_percent: int | None = None
    """Its part of the GPU's utilization; None: the driver has no sample of it."""


@dataclass(frozen=True, slots=True)
class SimMig:
    """A MIG device: a compute instance within a GPU instance of a GPU whose `mig_mode` is 1."""

    uuid: str
    profile: str
    """Such as `1g.10gb`."""
    gpu_instance: int
    memory_total_mib: int
    memory_used_mib: int = 0
    compute_instance: int = 0


@dataclass(frozen=True, slots=True)
class SimLinks:
    """NVLinks to one remote end: another GPU's index, or `SWITCH`."""

    to: int | str
    count: int


@dataclass(frozen=True, slots=True)
class SimSeries:
    """A recorded series of values, played from `start`; they take precedence over those of the state."""

    path: str
    """Absolute, or relative to the folder of the state file."""
    start: float
    """Time of its offset 0, in seconds since the epoch."""
    loop: bool = True
    """At its end: repeat it, or keep its last values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimGpu:
    """One GPU. `fail` and `delay` can affect each field separately."""

    uuid: str
    name: str
    pci_bus_id: str
    compute_capability: str | None = None
    serial: str | None = None
    architecture: int | None = None
    """NVML's number: 5 Volta, 6 Turing, 7 Ampere, 8 Ada, 9 Hopper, 10 Blackwell."""
    minor: int | None = None
    numa_node: int | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_reserved_mib: int | None = None
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    encoder_percent: int | None = None
    decoder_percent: int | None = None
    temperature_celsius: int | None = None
    memory_temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    """The enforced limit."""
    requested_power_limit_milliwatts: int | None = None
    energy_millijoules: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    performance_state: int | None = None
    throttle_reasons: int | None = None
    ecc_enabled: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    remap_pending: int | None = None
    remap_failed: int | None = None
    retirement_pending: int | None = None
    """Retirement of memory pages, which GPUs before Ampere have instead of row remapping."""
    mig_mode: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    recovery_action: int | None = None
    """NVML's number of what the GPU needs, as drivers from 565 on report it: 0 nothing, 1 a reset, 2 a reboot."""
    memory_numa_node: int | None = None
    """NUMA node that the GPU's memory is, where the operating system manages it (GH200, GB200)."""
    process_bytes: int | None = None
    """Size of an entry in the list of processes, as some drivers wrote it: 16 or 32 instead of 24."""
    processes: tuple[SimProcess, ...] = ()
    migs: tuple[SimMig, ...] = ()
    links: tuple[SimLinks, ...] = ()
    series: SimSeries | None = None
    fail: Mapping[str, int] = field(default_factory=dict)
    """NVML return code by field, or by `ALL`."""
    delay: Mapping[str, int] = field(default_factory=dict)
    """Milliseconds by field, or by `ALL`. A delayed call returns as soon as the file no longer contains the delay."""

    @property
    def lost(self) -> bool:
        """Whether every call about it fails with GPU_IS_LOST."""
        return self.fail.get(ALL) == GPU_IS_LOST


@dataclass(frozen=True, slots=True)
class SimXid:
    """An event. `sequence` increases; each event set delivers each event once."""

    sequence: int
    gpu: int
    code: int
    """XID, or the data of an event of another type."""
    instances: tuple[int, int] | None = None
    """Its GPU and compute instance; None when the hardware does not report them."""
    event_type: int = XID_EVENT
    """NVML's event type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimNode:
    """The GPUs of one node and its driver."""

    gpus: tuple[SimGpu, ...] = ()
    driver: str = "580.95.05"
    cuda: int = 13000
    error: int = 0
    """NVML return code of every call, such as 9 (driver not loaded) or 18 (library mismatch); 0 means success."""
    delay_ms: int = 0
    """Duration of initialization."""
    xids: tuple[SimXid, ...] = ()

    def with_gpu(self, index: int, **changes: Any) -> "SimNode":
        """Returns this node with some fields of one GPU changed.

        Raises:
            IndexError: The GPU does not exist.
            TypeError: The field does not exist.
        """
        if not 0 <= index < len(self.gpus):
            raise IndexError(f"no GPU {index}: the node has {len(self.gpus)}")
        gpus = list(self.gpus)
        gpus[index] = replace(gpus[index], **changes)
        return replace(self, gpus=tuple(gpus))

    def with_xid(self, gpu: int, code: int, instances: tuple[int, int] | None = None) -> "SimNode":
        """Returns this node with another XID event; the oldest are dropped above `MAX_XIDS`."""
        return self._with_event(SimXid(self._next_sequence, gpu, code, instances))

    def with_event(self, gpu: int, event_type: int, data: int = 0) -> "SimNode":
        """Returns this node with another event of an NVML type, as `with_xid`."""
        return self._with_event(SimXid(self._next_sequence, gpu, data, event_type=event_type))

    @property
    def _next_sequence(self) -> int:
        return self.xids[-1].sequence + 1 if self.xids else 1

    def _with_event(self, event: SimXid) -> "SimNode":
        return replace(self, xids=(*self.xids, event)[-MAX_XIDS:])

    def with_fail(self, gpu: int, what: str, code: int) -> "SimNode":
        """Returns this node with failing calls about `what` (a field, or `ALL`); code 0 ends that."""
        return self.with_gpu(gpu, fail=_changed(self.gpus[gpu].fail, what, code))

    def with_delay(self, gpu: int, what: str, milliseconds: int) -> "SimNode":
        """Returns this node with delayed calls about `what` (a field, or `ALL`); 0 ends that."""
        return self.with_gpu(gpu, delay=_changed(self.gpus[gpu].delay, what, milliseconds))

    def lose(self, gpu: int) -> "SimNode":
        """Returns this node with one GPU off the bus."""
        return self.with_fail(gpu, ALL, GPU_IS_LOST)

    def restore(self, gpu: int) -> "SimNode":
        """Returns this node with no failure and no delay of one GPU."""
        return self.with_gpu(gpu, fail={}, delay={})


def _changed(before: Mapping[str, int], key: str, value: int) -> dict[str, int]:
    after = {**before, key: value}
    if value == 0:
        del after[key]
    return after
