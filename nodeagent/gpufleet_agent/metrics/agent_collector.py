"""Series about sampling, health, reservations and shared memory, built without I/O at each scrape.

What is counted while it happens is in `runtime.instruments`.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.devices.base import ThrottleReason
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthState, NodeSnapshot
from gpufleet_common.units import BYTES_PER_MIB


class AgentCollector(Collector):
    """Collects the series of one node.

    Args:
        snapshot: Returns the sampler's snapshot.
        node_name: Value of the label `hostname`.
        reservations: Returns the number of reservations and the generation of the object; None if not read yet.
        listing_age: Returns the seconds since the last PodResources list; None if there was none yet.
        stale_seconds: Samples older than this are left out.
        overuse: Returns the memory use of holders of shared devices, active overuse, and the number of episodes begun.
    """

    def __init__(
        self,
        snapshot: Callable[[], NodeSnapshot],
        node_name: str,
        reservations: Callable[[], tuple[int, int] | None],
        listing_age: Callable[[], float | None],
        *,
        stale_seconds: float,
        overuse: Callable[[], tuple[tuple[MemoryUsage, ...], tuple[OveruseEpisode, ...], int]] = lambda: ((), (), 0),
    ) -> None:
        self._snapshot = snapshot
        self._node_name = node_name
        self._reservations = reservations
        self._listing_age = listing_age
        self._stale_seconds = stale_seconds
        self._overuse = overuse

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        yield from _sampling(snapshot, self._node_name)
        yield from _health(snapshot, self._node_name)
        yield _processes(snapshot, self._node_name, self._stale_seconds)
        yield _throttling(snapshot, self._node_name, self._stale_seconds)
        yield _events(snapshot, self._node_name)
        yield from _shares(*self._overuse(), node_name=self._node_name)
        yield from self._allocation()

    def _allocation(self) -> Iterable[Metric]:
        reservations, age = self._reservations(), self._listing_age()
        if reservations is not None:
            count, generation = reservations
            yield GaugeMetricFamily("gpufleet_agent_assignments", "Reservations on this node, as last read.", count)
            yield GaugeMetricFamily(
                "gpufleet_agent_assignments_generation",
                "Generation of the GPUTelemetry object, as last read.",
                generation,
            )
        if age is not None:
            yield GaugeMetricFamily(
                "gpufleet_agent_podresources_list_age_seconds", "Age of the last PodResources list.", age
            )


def _sampling(snapshot: NodeSnapshot, node_name: str) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "gpufleet_agent_hardware_available", "1 while the driver answers, else 0.", int(snapshot.unavailable is None)
    )
    yield CounterMetricFamily("gpufleet_agent_samples", "Valid samples of all devices.", snapshot.samples)
    dropped = CounterMetricFamily(
        "gpufleet_agent_samples_dropped",
        "Samples dropped, by reason (ReadFailed, or why the value is invalid).",
        labels=["reason"],
    )
    for reason, count in sorted(snapshot.dropped.items()):
        dropped.add_metric([reason], count)
    yield dropped
    values = CounterMetricFamily(
        "gpufleet_agent_values_dropped",
        "Values dropped from readings that were kept, by name and reason (ReadFailed, or why the value is invalid).",
        labels=["value", "reason"],
    )
    for (value, reason), count in sorted(snapshot.dropped_values.items()):
        values.add_metric([value, reason], count)
    yield values
    age = GaugeMetricFamily(
        "gpufleet_agent_sample_age_seconds",
        "Age of the device's last valid sample.",
        labels=["gpu", "UUID", "hostname"],
    )
    for device in snapshot.devices:
        if device.sample_age_seconds is not None:
            age.add_metric(_labels(device, node_name), device.sample_age_seconds)
    yield age


def _health(snapshot: NodeSnapshot, node_name: str) -> Iterable[Metric]:
    states = Counter(device.health.state for device in snapshot.devices)
    devices = GaugeMetricFamily("gpufleet_agent_devices", "Devices of this node, by health state.", labels=["state"])
    for state in HealthState:
        devices.add_metric([state.value], states[state])
    yield devices
    healthy = GaugeMetricFamily(
        "gpufleet_agent_device_healthy", "1 while the device has no fault, else 0.", labels=["gpu", "UUID", "hostname"]
    )
    faults = GaugeMetricFamily(
        "gpufleet_agent_device_fault",
        "Always 1; one series per active fault, by code.",
        labels=["gpu", "UUID", "hostname", "code"],
    )
    warnings = GaugeMetricFamily(
        "gpufleet_agent_device_warning",
        "Always 1; one series per active warning, by code.",
        labels=["gpu", "UUID", "hostname", "code"],
    )
    for device in snapshot.devices:
        labels = _labels(device, node_name)
        healthy.add_metric(labels, int(device.health.state is HealthState.HEALTHY))
        for reason in device.health.reasons:
            faults.add_metric([*labels, reason.code], 1)
        for warning in device.health.warnings:
            warnings.add_metric([*labels, warning.code], 1)
    yield from (healthy, faults, warnings)


def _processes(snapshot: NodeSnapshot, node_name: str, stale_seconds: float) -> Metric:
    processes = GaugeMetricFamily(
        "gpufleet_agent_device_processes", "Processes with a context on the device.", labels=["gpu", "UUID", "hostname"]
    )
    for device in snapshot.devices:
        sample, age = device.sample, device.sample_age_seconds
        if sample is not None and sample.process_count is not None and age is not None and age <= stale_seconds:
            processes.add_metric(_labels(device, node_name), sample.process_count)
    return processes


def _throttling(snapshot: NodeSnapshot, node_name: str, stale_seconds: float) -> Metric:
    throttled = GaugeMetricFamily(
        "gpufleet_agent_device_throttled",
        "1 while the clocks are throttled for this reason, else 0.",
        labels=["gpu", "UUID", "hostname", "reason"],
    )
    for device in snapshot.devices:
        sample, age = device.sample, device.sample_age_seconds
        if sample is not None and sample.throttle_reasons is not None and age is not None and age <= stale_seconds:
            for reason in ThrottleReason:
                labels = [*_labels(device, node_name), reason.value]
                throttled.add_metric(labels, int(reason in sample.throttle_reasons))
    return throttled


def _shares(
    uses: tuple[MemoryUsage, ...], standing: tuple[OveruseEpisode, ...], begun: int, *, node_name: str
) -> Iterable[Metric]:
    labels = ["gpu", "UUID", "hostname", "namespace", "pod", "container"]
    promised = GaugeMetricFamily(
        "gpufleet_agent_share_memory_promised_bytes",
        "Memory of a shared device reserved for the container.",
        labels=labels,
    )
    used = GaugeMetricFamily(
        "gpufleet_agent_share_memory_used_bytes",
        "Memory of a shared device used by the container's processes.",
        labels=labels,
    )
    overused = GaugeMetricFamily(
        "gpufleet_agent_share_memory_overused",
        "1 while the container uses more memory than it reserved, else 0.",
        labels=labels,
    )
    over = {(one.usage.uuid, one.usage.pod_uid) for one in standing}
    for use in uses:
        values = [str(use.index), use.uuid, node_name, use.key.namespace, use.key.pod, use.key.container]
        promised.add_metric(values, use.promised_mib * BYTES_PER_MIB)
        if use.used_mib is not None:
            used.add_metric(values, use.used_mib * BYTES_PER_MIB)
        overused.add_metric(values, int((use.uuid, use.pod_uid) in over))
    yield from (promised, used, overused)
    yield CounterMetricFamily(
        "gpufleet_agent_share_overuse_episodes", "Times a container began to use more memory than it reserved.", begun
    )


def _events(snapshot: NodeSnapshot, node_name: str) -> Metric:
    events = CounterMetricFamily(
        "gpufleet_agent_device_events",
        "Events reported by devices, by kind and code (the XID for XidError).",
        labels=["gpu", "UUID", "hostname", "kind", "code"],
    )
    for device in snapshot.devices:
        for event in device.events:
            labels = [*_labels(device, node_name), event.kind, str(event.code)]
            events.add_metric(labels, event.count)
    return events


def _labels(device: DeviceSnapshot, node_name: str) -> list[str]:
    return [str(device.info.index), device.info.uuid, node_name]
