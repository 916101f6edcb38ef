"""Converts API objects to engine input: a GPUTelemetry to a NodeState, a GPUWorkload to a Request.

Operator and command line share it. Pure: no client, no clock. The caller passes the age of the telemetry and the free
capacity of the node, because it has the apiserver's time and the pods.

    state = node_state(telemetry, node, age_seconds=3.2, stale_after_seconds=90)
    fleet = Fleet.of([state, ...])
    decision = place(fleet, request(workload, replicas=(0, 1)))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gpufleet_api.names import SHARED_SLOTS
from gpufleet_api.telemetry.device import Device
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import DeviceMode, Devices, GPUWorkload, Requirements
from gpufleet_common import timestamps
from gpufleet_operator.fleet import cordons
from gpufleet_operator.ledger.device_usage import by_device, usage_of
from gpufleet_operator.ledger.own_use import RECLAIM_AFTER, ObservationTime
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.lenient_json import as_map
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy, tolerations
from gpufleet_operator.placement.errors import InvalidSampleError
from gpufleet_operator.placement.fleet.validate_sample import check_sample
from gpufleet_operator.placement.model import (
    MAX_RESOURCE_AMOUNT,
    DeviceNeeds,
    DeviceState,
    NodeState,
    Request,
    ScoreWeights,
    Share,
)
from gpufleet_operator.pods.requests import pod_needs

_MAX_AGE_SECONDS = 10 * 365 * 86_400.0
"""Ages are cut at ten years, so that a node's wrong clock does not lead to an overflow."""

UNKNOWN_CAPACITY = MAX_RESOURCE_AMOUNT
"""Free capacity of a node of which only the telemetry is known (a saved fleet file): everything fits."""


UNKNOWN_NODE = NodeState(
    name="",
    devices=(),
    free_cpu_milli=UNKNOWN_CAPACITY,
    free_memory_bytes=UNKNOWN_CAPACITY,
    free_pods=UNKNOWN_CAPACITY,
)
"""A node of which only the telemetry is known."""


def node_state(
    telemetry: GPUTelemetry,
    node: NodeState,
    *,
    age_seconds: float,
    stale_after_seconds: float,
    stale_reason: str | None = None,
    now: datetime | None = None,
    slots: int = SHARED_SLOTS,
    reclaim_after: timedelta = RECLAIM_AFTER,
    assignments: Sequence[Assignment] | None = None,
) -> NodeState:
    """Converts one node.

    The use of a device is the union of the reservations (`spec.assignments`) and the kubelet's report
    (`status.devices[].allocatedTo`), see `ledger.device_usage`. A device with an impossible sample loses its
    measurements and counts as never sampled: only this device becomes unusable.

    Args:
        telemetry: The node's object.
        node: Labels, taints and free capacity; its name and devices are replaced by those of the telemetry.
        age_seconds: Time since the agent wrote the status, both by one clock.
        stale_after_seconds: Maximum age of a status or a sample that is used.
        stale_reason: Why the caller does not use this telemetry, as a message.
        now: By the clock of `decidedAt`, to find the reservations that a sample cannot show yet. None: the node's own
            clock is used, as for a saved file.
        slots: Maximum number of containers that share one device.
        reclaim_after: How long a holder must be observed before others get what it does not use.
        assignments: The reservations that count; None: those of the telemetry.
    """
    status = telemetry.status
    devices: tuple[DeviceState, ...] = ()
    if status is None:
        stale_reason = stale_reason or "agent has not published telemetry yet"
    else:
        if age_seconds > stale_after_seconds:
            stale_reason = stale_reason or f"telemetry is {age_seconds:.0f} s old, limit {stale_after_seconds:.0f} s"
        reserved = by_device(telemetry.spec.assignments if assignments is None else assignments)
        observed_at = timestamps.parse(status.observed_at)
        cordoned = cordons.active(telemetry.spec.cordoned, now or observed_at)
        observation = ObservationTime(observed_at, reclaim_after)
        # Most devices of a node are sampled together.
        samples = {
            text: SampleAge.of(text, observed_at, age_seconds, now)
            for text in {sampled_at(device, status.sample_time) for device in status.devices}
            if text is not None
        }
        devices = tuple(
            _device_state(
                telemetry.metadata.name,
                device,
                reserved=reserved.get(device.uuid, ()),
                cordoned=cordons.message(cordoned.get(device.uuid)),
                sample=samples.get(sampled_at(device, status.sample_time) or ""),
                observation=observation,
                limit=stale_after_seconds,
                slots=slots,
            )
            for device in status.devices
        )
    return replace(node, name=telemetry.metadata.name, devices=devices, stale_reason=stale_reason)


def request(
    workload: GPUWorkload,
    *,
    replicas: tuple[int, ...] | None = None,
    resources: Resources = DEFAULTS,
    excluded_nodes: Mapping[int, frozenset[str]] | None = None,
    placed_replicas: Mapping[str, int] | None = None,
    policy: PodPolicy = DEFAULT_POLICY,
) -> Request:
    """Converts a workload to a request for its replicas.

    Args:
        workload: The user's object.
        replicas: Indices to place; None: all.
        resources: The extended resources of devices, which the engine does not count as node capacity.
        excluded_nodes: Per replica, nodes that must not be used at present.
        placed_replicas: Number of replicas that are placed already, per node.
        policy: For the tolerations that pods get.
    """
    spec = workload.spec
    pod = as_map(spec.pod_spec)
    pod = {**pod, "tolerations": tolerations(pod.get("tolerations"), policy)}
    needed = spec.requirements or Requirements()
    weights = spec.placement.weights
    return Request(
        name=f"{workload.metadata.namespace or 'default'}/{workload.metadata.name}",
        replicas=tuple(range(spec.replicas)) if replicas is None else replicas,
        devices=device_needs(needed, spec.devices.count, share(spec.devices)),
        pod=pod_needs(pod, node_selector=needed.node_selector, without=resources.names),
        strategy=spec.placement.strategy,
        topology=spec.placement.topology,
        weights=ScoreWeights(weights.memory, weights.utilization, weights.temperature, weights.power),
        gang=spec.placement.gang,
        excluded_nodes=excluded_nodes or {},
        placed_replicas=placed_replicas or {},
    )


def sampled_at(device: Device, newest: str | None) -> str | None:
    """Returns when a device was last sampled; None: never.

    Args:
        device: As reported. The agent dates each sample; a file that was written by hand may date the node only.
        newest: The latest sample of the node. It does not apply to a device without a value.
    """
    values = (device.memory_used_mib, device.utilization_percent, device.temperature_celsius, device.power_milliwatts)
    return device.sample_time or (newest if any(value is not None for value in values) else None)


def share(devices: Devices) -> Share | None:
    """Returns the share of each device that a replica is promised; None: it gets whole devices."""
    if devices.mode is DeviceMode.EXCLUSIVE:
        return None
    return Share(devices.memory_mib or 0, devices.compute_percent or 0)


def device_needs(needed: Requirements, count: int, shared: Share | None = None) -> DeviceNeeds:
    """Converts `spec.requirements` for the engine's filters."""
    return DeviceNeeds(
        count=count,
        min_free_memory_mib=needed.min_free_memory_mib,
        max_utilization_percent=needed.max_utilization_percent,
        max_temperature_celsius=needed.max_temperature_celsius,
        models=frozenset(needed.models),
        min_compute_capability=needed.min_compute_capability,
        include_uuids=frozenset(needed.include_uuids),
        exclude_uuids=frozenset(needed.exclude_uuids),
        share=shared,
    )


@dataclass(frozen=True, slots=True)
class SampleAge:
    """When a sample was taken."""

    text: str
    """As reported, by the node's clock."""
    seconds: float
    at: datetime
    """By the clock of `decidedAt`."""

    @classmethod
    def of(cls, sampled_at: str, observed_at: datetime, age_seconds: float, now: datetime | None) -> "SampleAge":
        """Adds the time from sample to status, by the agent's clock, to the age of the status."""
        taken = timestamps.parse(sampled_at)
        age = age_seconds + max(0.0, (observed_at - taken).total_seconds())
        age = min(age, _MAX_AGE_SECONDS)
        return cls(sampled_at, age, taken if now is None else now - timedelta(seconds=age))

    def stale_reason(self, limit_seconds: float) -> str | None:
        """Returns a message when the sample is too old, with its time: an age would change in every pass."""
        if self.seconds <= limit_seconds:
            return None
        return f"last sample is older than {limit_seconds:.0f} s (taken {self.text})"


def _device_state(
    node: str,
    device: Device,
    *,
    reserved: Sequence[Assignment],
    cordoned: str | None,
    sample: SampleAge | None,
    observation: ObservationTime,
    limit: float,
    slots: int,
) -> DeviceState:
    usage = usage_of(device, reserved, sample.at if sample else None, observation)
    state = DeviceState(
        uuid=device.uuid,
        index=device.index,
        model=device.model,
        memory_total_mib=device.memory_total_mib,
        memory_used_mib=device.memory_used_mib,
        memory_reserved_mib=device.memory_reserved_mib,
        memory_model=device.memory_model,
        utilization_percent=device.utilization_percent,
        temperature_celsius=device.temperature_celsius,
        power_milliwatts=device.power_milliwatts,
        power_limit_milliwatts=device.power_limit_milliwatts,
        compute_capability=device.compute_capability,
        numa_node=device.numa_node,
        nvlink_peers=tuple(device.nvlink_peers),
        healthy=device.offered,
        cordoned=cordoned,
        process_count=device.process_count,
        held=usage.held,
        sharers=usage.sharers,
        promised_memory_mib=usage.promised_memory_mib,
        promised_compute_percent=usage.promised_compute_percent,
        reclaimed_memory_mib=usage.reclaimed_memory_mib,
        in_flight_memory_mib=usage.in_flight_memory_mib,
        in_flight_compute_percent=usage.in_flight_compute_percent,
        free_slots=max(0, slots - usage.sharers),
        sample_age_seconds=sample.seconds if sample else None,
        stale_reason=sample.stale_reason(limit) if sample else None,
    )
    try:
        check_sample(node, state)
    except InvalidSampleError as error:
        return _without_measurements(state, f"invalid sample: {error}")
    return state


def _without_measurements(state: DeviceState, stale_reason: str) -> DeviceState:
    """Returns a device without any value that could be the wrong one: only its identity, health and whole use."""
    return DeviceState(
        uuid=state.uuid,
        index=state.index,
        model=state.model,
        memory_total_mib=None,
        memory_used_mib=None,
        utilization_percent=None,
        temperature_celsius=None,
        healthy=state.healthy,
        cordoned=state.cordoned,
        held=state.held,
        stale_reason=stale_reason,
    )
