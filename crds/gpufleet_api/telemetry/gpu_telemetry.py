"""GPUTelemetry: what one node's GPUs measure, which of them are reserved, and which are out of service.

Each field has one writer: the operator writes `spec.assignments` (the reservations) and `status.conditions`,
administrators write `spec.cordoned`, and the node's agent writes the rest of `status`. A change of the spec raises
`metadata.generation` and a change of the status does not, so the operator's compare-and-swap on the generation never
conflicts with telemetry.
"""

from typing import Annotated

from pydantic import Field

from gpufleet_api.base import ApiModel, ObjectMeta, Timestamp
from gpufleet_api.condition import Condition
from gpufleet_api.markers import EMPTY, ListAtomic, ListMap
from gpufleet_api.names import MAX_DEVICES, TelemetryState, Transport
from gpufleet_api.telemetry.device import Device
from gpufleet_api.telemetry.spec import TelemetrySpec
from gpufleet_api.telemetry.value_types import Celsius, MiB, Percent


class Summary(ApiModel):
    """Totals over the node's devices. A total of a quantity that no device reports is absent."""

    state: TelemetryState | None = None
    """Ready: the driver is available. Stale: no device was sampled in the last 90 seconds. NoDriver: the GPU driver is
    not available on the node. When the agent does not run, the last state stays; see the condition Fresh."""
    devices: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices."""
    healthy: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices without a fault."""
    allocated: Annotated[int, Field(ge=0, le=MAX_DEVICES)]
    """Number of devices that containers hold, as a whole or a share of them."""
    free: Annotated[int, Field(ge=0, le=MAX_DEVICES)] | None = None
    """Number of devices that can be given to a container and that no container holds."""
    memory_total_mib: MiB | None = None
    """Total memory of all devices, in MiB."""
    memory_used_mib: MiB | None = None
    """Memory in use on all devices, in MiB."""
    memory_available_mib: MiB | None = None
    """Memory that is neither in use nor reserved on healthy devices, in MiB."""
    mean_utilization_percent: Percent | None = None
    """Mean compute utilization, in percent."""
    mean_temperature_celsius: Celsius | None = None
    """Mean temperature, in degrees Celsius."""
    power_watts: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Power draw of all devices, in watts."""


class TelemetryStatus(ApiModel):
    """Measurements of the node's devices. The node's agent writes it, except for the conditions."""

    assignments_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The metadata.generation whose assignments the agent had read when it wrote this status."""
    observed_at: Timestamp
    """Time at which the agent wrote this status, by the node's clock. If nothing changes, it is written every five
    minutes; in between, the agent renews a Lease whose annotation `gpufleet.dev/observed-at` has this value."""
    sample_time: Timestamp | None = None
    """Time of the newest sample of any device, by the node's clock."""
    agent_version: Annotated[str, Field(max_length=64)]
    """Version of the agent."""
    driver_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the GPU driver. Absent while the driver is not available or does not report it."""
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    """Boot ID of the node. Faults reported in an earlier boot are over."""
    transport: Transport | None = None
    """How containers get the devices. DRA: by ResourceClaims, without an extended resource. Absent: DevicePlugin."""
    processes_observed: bool | None = None
    """True when the agent can list the processes of the node: a container is in `allocatedTo` until its pod has no
    process. Absent otherwise: a container of a pod that was deleted by force may run without being listed."""
    devices: Annotated[list[Device], Field(max_length=MAX_DEVICES), ListAtomic()] = EMPTY
    """Devices of the node, by NVML index."""
    summary: Summary
    conditions: Annotated[list[Condition], Field(max_length=8), ListMap("type")] = EMPTY
    """Conditions Fresh and Healthy, and Drained while a device is drained. Only the operator writes them."""


class GPUTelemetry(ApiModel):
    """Measurements and reservations of one node's GPUs. The object has the name of its node, which owns it."""

    metadata: ObjectMeta
    spec: TelemetrySpec = TelemetrySpec()
    status: TelemetryStatus | None = None
