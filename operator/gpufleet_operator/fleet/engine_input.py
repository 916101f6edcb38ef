"""API objects -> engine input: GPUTelemetry becomes a NodeState, GPUWorkload a Request.

The one place where this happens, for operator and command line alike. Pure: no client, no clock. How old the
telemetry is and what the node has room for is told by the caller, who knows the apiserver's time and the pods.

    node = node_state(telemetry, facts, age_seconds=3.2, stale_after_seconds=90)
    fleet = Fleet.of([node, ...])
    decision = place(fleet, request(workload, replicas=(0, 1)))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gpufleet_api.names import SHARED_SLOTS
from gpufleet_api.telemetry import Assignment, Device, GPUTelemetry
from gpufleet_api.workload import DeviceMode, Devices, GPUWorkload, Requirements
from gpufleet_common import timestamps
from gpufleet_operator.ledger.device_usage import by_device, usage_of
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.placement.errors import InvalidSampleError
from gpufleet_operator.placement.fleet.validate_sample import check_sample
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Request, ScoreWeights, Share, Taint
from gpufleet_operator.pods.requests import pod_needs

_OLDEST_SECONDS = 10 * 365 * 86_400.0
"""No age is counted further than ten years, so that a clock at the beginning of time is no error of ours."""

UNKNOWN_CAPACITY = 2**62
"""Stands for "as much as you like" where nothing is known of a node but its telemetry (a saved fleet file)."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What v1.Node and the pods bound or pinned to it say. The defaults are those of a node nobody knows."""

    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    free_cpu_milli: int = UNKNOWN_CAPACITY
    free_memory_bytes: int = UNKNOWN_CAPACITY
    free_pods: int = UNKNOWN_CAPACITY
    free_extended: Mapping[str, int] = field(default_factory=dict)


def node_state(
    telemetry: GPUTelemetry,
    facts: NodeInfo,
    *,
    age_seconds: float,
    stale_after_seconds: float,
    stale_reason: str | None = None,
    now: datetime | None = None,
    slots: int = SHARED_SLOTS,
) -> NodeState:
    """One node as the engine sees it.

    How a device is used is what the ledger (`spec.assignments`) and the kubelet (`status.devices[].allocatedTo`) say
    together, see `uses`. A device whose sample can't be true loses its measurements and counts as never sampled: it
    fails closed and takes no other device with it.

    Args:
        telemetry: the node's object.
        facts: the node's labels, taints and room.
        age_seconds: how long ago the agent wrote the status, by one clock for writer and reader.
        stale_after_seconds: an older status or sample isn't used.
        stale_reason: in words, when the caller has another reason not to use this telemetry.
        now: by the clock that the reservations are dated by, to tell which of them a sample can't show yet; None: the
            node's clock is believed, as in a saved file.
        slots: most containers that share one device.
    """
    status = telemetry.status
    reserved = by_device(telemetry.spec.assignments)
    devices: tuple[DeviceState, ...] = ()
    if status is None:
        stale_reason = stale_reason or "the agent has published no telemetry yet"
    else:
        if age_seconds > stale_after_seconds:
            stale_reason = stale_reason or f"telemetry is {age_seconds:.0f} s old, limit {stale_after_seconds:.0f} s"
        devices = tuple(
            _device(
                telemetry.metadata.name,
                device,
                reserved=reserved.get(device.uuid, ()),
                taken=_Taken.of(sampled_at(device, status.sample_time), status.observed_at, age_seconds, now),
                limit=stale_after_seconds,
                slots=slots,
            )
            for device in status.devices
        )
    return NodeState(
        name=telemetry.metadata.name,
        devices=devices,
        labels=facts.labels,
        taints=facts.taints,
        unschedulable=facts.unschedulable,
        free_cpu_milli=facts.free_cpu_milli,
        free_memory_bytes=facts.free_memory_bytes,
        free_pods=facts.free_pods,
        free_extended=facts.free_extended,
        stale_reason=stale_reason,
    )


def request(
    workload: GPUWorkload,
    *,
    replicas: tuple[int, ...] | None = None,
    resources: Resources = DEFAULTS,
    excluded_nodes: Mapping[int, frozenset[str]] | None = None,
    placed_replicas: Mapping[str, int] | None = None,
) -> Request:
    """One workload's open replicas as the engine's question.

    Args:
        workload: the user's object.
        replicas: indices still to place; None: all of them.
        resources: the extended resources that stand for devices, which the engine doesn't count again.
        excluded_nodes: per replica, nodes not to use for now.
        placed_replicas: replicas already placed, per node.
    """
    spec = workload.spec
    needed = spec.requirements or Requirements()
    weights = spec.placement.weights
    return Request(
        name=f"{workload.metadata.namespace or 'default'}/{workload.metadata.name}",
        replicas=tuple(range(spec.replicas)) if replicas is None else replicas,
        devices=replace(device_needs(needed, spec.devices.count), share=share(spec.devices)),
        pod=pod_needs(spec.template.get("spec"), node_selector=needed.node_selector, without=resources.names),
        strategy=spec.placement.strategy,
        topology=spec.placement.topology,
        weights=ScoreWeights(weights.memory, weights.utilization, weights.temperature, weights.power),
        gang=spec.placement.gang,
        excluded_nodes=excluded_nodes or {},
        placed_replicas=placed_replicas or {},
    )


def sampled_at(device: Device, newest: str | None) -> str | None:
    """When a device was last sampled; None: never.

    Args:
        device: as reported. The agent dates each sample; a file written by hand may date the node alone.
        newest: of all samples of the node. It says nothing of a device that has never given a value.
    """
    values = (device.memory_used_mib, device.utilization_percent, device.temperature_celsius, device.power_milliwatts)
    return device.sample_time or (newest if any(value is not None for value in values) else None)


def share(devices: Devices) -> Share | None:
    """What a replica is promised of each of its devices; None: it gets whole ones."""
    if devices.mode is DeviceMode.EXCLUSIVE:
        return None
    return Share(devices.memory_mib or 0, devices.compute_percent or 0)


def device_needs(needed: Requirements, count: int) -> DeviceNeeds:
    """`spec.requirements` as the engine's filters take it."""
    return DeviceNeeds(
        count=count,
        min_free_memory_mib=needed.min_free_memory_mib,
        max_utilization_percent=needed.max_utilization_percent,
        max_temperature_celsius=needed.max_temperature_celsius,
        models=frozenset(needed.models),
        min_compute_capability=needed.min_compute_capability,
        include_uuids=frozenset(needed.include_uuids),
        exclude_uuids=frozenset(needed.exclude_uuids),
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """When a sample was taken: by the node's clock as it says, how long ago, and by the clock of reservations."""

    text: str
    age: float
    at: datetime

    @classmethod
    def of(cls, sampled_at: str | None, observed_at: str, age_seconds: float, now: datetime | None) -> "_Taken | None":
        """Age of the status, plus what the agent's own clock says lay between sample and status. None: never."""
        if sampled_at is None:
            return None
        taken = timestamps.parse(sampled_at)
        age = age_seconds + max(0.0, (timestamps.parse(observed_at) - taken).total_seconds())
        age = min(age, _OLDEST_SECONDS)
        return cls(sampled_at, age, taken if now is None else now - timedelta(seconds=age))


def _device(
    node: str, device: Device, *, reserved: Sequence[Assignment], taken: _Taken | None, limit: float, slots: int
) -> DeviceState:
    use = usage_of(device, reserved, taken.at if taken else None)
    state = DeviceState(
        uuid=device.uuid,
        index=device.index,
        model=device.model,
        memory_total_mib=device.memory_total_mib,
        memory_used_mib=device.memory_used_mib,
        utilization_percent=device.utilization_percent,
        temperature_celsius=device.temperature_celsius,
        power_milliwatts=device.power_milliwatts,
        power_limit_milliwatts=device.power_limit_milliwatts,
        compute_capability=device.compute_capability,
        numa_node=device.numa_node,
        nvlink_peers=frozenset(device.nvlink_peers),
        healthy=device.offered,
        process_count=device.process_count,
        held=use.held,
        sharers=use.sharers,
        promised_memory_mib=use.promised_memory_mib,
        promised_compute_percent=use.promised_compute_percent,
        in_flight_memory_mib=use.in_flight_memory_mib,
        in_flight_compute_percent=use.in_flight_compute_percent,
        free_slots=max(0, slots - use.sharers),
        sample_age_seconds=taken.age if taken else None,
        # The time and not the age: the words end up in a status, which isn't to be written anew every second.
        stale_reason=None
        if taken is None or taken.age <= limit
        else f"has no sample of the last {limit:.0f} s (the last is of {taken.text})",
    )
    try:
        check_sample(node, state)
    except InvalidSampleError as error:
        # Nothing that could be the wrong value is kept: what it is and where it stands, that it is taken, and why not.
        return DeviceState(
            uuid=device.uuid,
            index=device.index,
            model=device.model,
            memory_total_mib=None,
            memory_used_mib=None,
            utilization_percent=None,
            temperature_celsius=None,
            healthy=state.healthy,
            held=state.held,
            stale_reason=f"has a sample that can't be true: {error}",
        )
    return state
