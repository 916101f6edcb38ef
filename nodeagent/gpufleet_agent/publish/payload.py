"""Builds the GPUTelemetry status as plain data, as `gpufleet_api.telemetry.gpu_telemetry` defines it.

The models are not used: the agent runs on every GPU node and does without pydantic. A test compares the two. Values
that the hardware does not report are absent.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import HolderKey
from gpufleet_agent.overuse.memory_windows import ObservedMemory
from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import (
    DeviceSnapshot,
    HealthReason,
    HealthSnapshot,
    HealthState,
    NodeSnapshot,
    Statistics,
    WindowSummary,
)
from gpufleet_api.names import MAX_DEVICES, STALE_AFTER_SECONDS, TelemetryState, Transport
from gpufleet_common import timestamps

Status = dict[str, Any]

MAX_HOLDERS = 64
MAX_REASONS = 16
MAX_TEXT = 256
"""A quarter of what the API allows: the object must fit into etcd even if 64 devices have faults."""
MAX_MODEL = 96


def build_status(
    snapshot: NodeSnapshot,
    holders: Holders,
    *,
    generation: int | None,
    observed_at: float,
    agent_version: str,
    boot_id: str | None = None,
    transport: Transport | None = None,
    processes_observed: bool = False,
    overuse: Iterable[OveruseEpisode] = (),
    usages: Iterable[ContainerUsage] = (),
    memory: Mapping[HolderKey, ObservedMemory] | None = None,
    withheld: Mapping[str, str] | None = None,
    cordoned: Collection[str] = (),
) -> Status:
    """Builds the status.

    Args:
        snapshot: Devices and health.
        holders: Containers by device.
        generation: `metadata.generation` of the object as last read.
        observed_at: Now, in seconds since the epoch.
        agent_version: Version of this program.
        boot_id: Boot ID of the node.
        transport: How devices get into containers.
        processes_observed: Whether `holders` has every container that still runs.
        overuse: Containers that use more memory than they reserved.
        usages: What containers use.
        memory: Current and maximum memory use of holders of shared devices.
        withheld: By UUID, why devices without a fault cannot be allocated.
        cordoned: UUIDs of devices that are out of service.
    """
    devices = snapshot.devices[:MAX_DEVICES]
    over = {one.usage.holder: one for one in overuse}
    used = {(usage.uuid, usage.key): usage.utilization_percent for usage in usages}
    return _present(
        assignmentsGeneration=generation,
        observedAt=timestamp(observed_at),
        sampleTime=_sample_time(snapshot.sample_age_seconds, observed_at),
        agentVersion=agent_version,
        driverVersion=snapshot.driver_version,
        bootId=boot_id,
        transport=None if transport is None else transport.value,
        processesObserved=processes_observed or None,
        devices=[
            _device(
                device,
                _held(device.info.uuid, holders.get(device.info.uuid, ()), over, used, memory or {}),
                observed_at,
                (withheld or {}).get(device.info.uuid),
            )
            for device in devices
        ],
        summary=_summary(snapshot, holders, {*(withheld or ()), *cordoned}),
    )


def timestamp(seconds: float) -> str:
    return timestamps.micros(timestamps.from_epoch(seconds))


def _sample_time(age_seconds: float | None, observed_at: float) -> str | None:
    # Derived from the age, not from the wall clock at the time: after that was set back by hours, an old sample would
    # look fresh for hours.
    return None if age_seconds is None else timestamp(observed_at - age_seconds)


def _device(device: DeviceSnapshot, holders: list[Status], observed_at: float, withheld: str | None) -> Status:
    info, sample = device.info, device.sample
    fields = _present(
        uuid=info.uuid,
        index=info.index,
        model=info.model[:MAX_MODEL],
        architecture=info.architecture,
        computeCapability=info.compute_capability,
        pciBusId=info.pci_bus_id,
        numaNode=info.numa_node,
        nvlinkPeers=list(info.nvlink_peers) or None,
        memoryTotalMiB=info.memory_total_mib,
        memoryModel=None if info.memory_model is None else info.memory_model.value,
        health=_health(device.health),
        withheld=None if withheld is None else withheld[:MAX_TEXT],
        window=_window(device.window),
        allocatedTo=holders or None,
    )
    if sample is None:
        return fields
    return fields | _present(sampleTime=_sample_time(device.sample_age_seconds, observed_at)) | _sample(sample)


def _sample(sample: Sample) -> Status:
    mig_modes = {None: None, True: "Enabled", False: "Disabled"}
    return _present(
        memoryTotalMiB=sample.memory_total_mib,
        memoryUsedMiB=sample.memory_used_mib,
        memoryReservedMiB=sample.memory_reserved_mib,
        utilizationPercent=sample.utilization_percent,
        memoryUtilizationPercent=sample.memory_utilization_percent,
        temperatureCelsius=sample.temperature_celsius,
        memoryTemperatureCelsius=sample.memory_temperature_celsius,
        powerMilliwatts=sample.power_milliwatts,
        powerLimitMilliwatts=sample.power_limit_milliwatts,
        clocks=_present(smMHz=sample.sm_clock_mhz, memoryMHz=sample.memory_clock_mhz) or None,
        throttleReasons=sorted(reason.value for reason in sample.throttle_reasons or ()) or None,
        ecc=_present(correctedVolatile=sample.ecc_corrected, uncorrectedVolatile=sample.ecc_uncorrected) or None,
        rowRemap=_present(pending=sample.row_remap_pending, failed=sample.row_remap_failed) or None,
        pageRetirementPending=sample.page_retirement_pending,
        migMode=mig_modes[sample.mig_enabled],
        processCount=sample.process_count,
    )


def _health(health: HealthSnapshot) -> Status:
    return _present(
        state=health.state.value,
        reasons=[_reason(reason) for reason in health.reasons[:MAX_REASONS]] or None,
        warnings=[_reason(reason) for reason in health.warnings[:MAX_REASONS]] or None,
        since=None if health.since is None else timestamp(health.since),
    )


def _reason(reason: HealthReason) -> Status:
    return {
        "code": reason.code,
        "message": reason.message[:MAX_TEXT],
        "since": timestamp(reason.since),
        "recovery": reason.recovery.value,
    }


def _window(window: WindowSummary | None) -> Status | None:
    if window is None:
        return None
    return _present(
        samples=window.samples,
        seconds=round(window.seconds),
        utilizationPercent=_statistics(window.utilization_percent),
        memoryUsedMiB=_statistics(window.memory_used_mib),
        temperatureCelsius=_statistics(window.temperature_celsius),
        powerMilliwatts=_statistics(window.power_milliwatts),
    )


def _statistics(statistics: Statistics | None) -> Status | None:
    if statistics is None:
        return None
    return {"mean": round(statistics.mean), "max": statistics.max, "p95": statistics.p95}


def _held(
    uuid: str,
    holders: tuple[HoldingContainer, ...],
    overuse: Mapping[HolderKey, OveruseEpisode],
    utilization: Mapping[tuple[str, ContainerKey], int | None],
    memory: Mapping[HolderKey, ObservedMemory],
) -> list[Status]:
    found = []
    for holder in holders[:MAX_HOLDERS]:
        key = uuid, holder.pod_uid or ""
        found.append(_holder(holder, overuse.get(key), utilization.get((uuid, holder.key)), memory.get(key)))
    return found


def _holder(
    holder: HoldingContainer, overuse: OveruseEpisode | None, utilization: int | None, memory: ObservedMemory | None
) -> Status:
    key = holder.key
    observed = {} if memory is None else _observed(memory)
    return observed | _present(
        namespace=key.namespace,
        pod=key.pod,
        container=key.container,
        podUID=holder.pod_uid,
        shared=holder.shared or None,
        memoryMiB=holder.memory_mib,
        computePercent=holder.compute_percent,
        terminating=holder.terminating or None,
        utilizationPercent=utilization,
        overuse=None if overuse is None else {"memoryUsedMiB": overuse.used_mib, "since": timestamp(overuse.since)},
    )


def _observed(memory: ObservedMemory) -> Status:
    since = timestamp(memory.since)
    return {"memoryUsedMiB": memory.used_mib, "memoryUsedMaxMiB": memory.max_mib, "observedSince": since}


def _summary(view: NodeSnapshot, holders: Holders, not_available: Collection[str]) -> Status:
    devices = view.devices[:MAX_DEVICES]
    samples = [device.sample for device in devices if device.sample is not None]
    power = _total(sample.power_milliwatts for sample in samples)
    available = [
        max(
            0,
            device.sample.memory_total_mib - device.sample.memory_used_mib - (device.sample.memory_reserved_mib or 0),
        )
        for device in devices
        if device.health.state is HealthState.HEALTHY
        and device.sample is not None
        and device.sample.memory_total_mib is not None
        and device.sample.memory_used_mib is not None
    ]
    healthy = {device.info.uuid for device in devices if device.health.state is HealthState.HEALTHY}
    return _present(
        state=_state(view),
        devices=len(devices),
        healthy=len(healthy),
        allocated=sum(device.info.uuid in holders for device in devices),
        free=len(healthy.difference(holders, not_available)),
        memoryTotalMiB=_total(sample.memory_total_mib for sample in samples),
        memoryUsedMiB=_total(sample.memory_used_mib for sample in samples),
        memoryAvailableMiB=sum(available) if available else None,
        meanUtilizationPercent=_mean(sample.utilization_percent for sample in samples),
        meanTemperatureCelsius=_mean(sample.temperature_celsius for sample in samples),
        powerWatts=None if power is None else round(power / 1000),
    )


def _state(view: NodeSnapshot) -> TelemetryState:
    if view.unavailable is not None:
        return TelemetryState.NO_DRIVER
    age = view.sample_age_seconds
    if view.devices and (age is None or age > STALE_AFTER_SECONDS):
        return TelemetryState.STALE
    return TelemetryState.READY


def _total(values: Iterable[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def _mean(values: Iterable[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return round(sum(present) / len(present)) if present else None


def _present(**fields: Any) -> Status:
    return {name: value for name, value in fields.items() if value is not None}
