"""What the agent knows about its own work, made from memory at each scrape.

What it counts as it goes is in `counters`.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.devices.base import ThrottleReason
from gpufleet_agent.overuse.episodes import OveruseEpisode
from gpufleet_agent.overuse.memory_usage import MemoryUsage
from gpufleet_agent.sampling.snapshot import HealthState, NodeSnapshot


class AgentCollector(Collector):
    """Sampling, health and reservations.

    Args:
        view: What the sampler knows.
        reservations: Number of reservations read, and the generation of the object; None: not read yet.
        listing_age: Seconds since the last list of the kubelet; None: there was none yet.
        stale_seconds: A sample older than this says nothing about now.
        overuse: What holders of shared devices use, and how many episodes of over-use there were.
    """

    def __init__(
        self,
        view: Callable[[], NodeSnapshot],
        reservations: Callable[[], tuple[int, int] | None],
        listing_age: Callable[[], float | None],
        stale_seconds: float,
        overuse: Callable[[], tuple[tuple[MemoryUsage, ...], tuple[OveruseEpisode, ...], int]] = lambda: ((), (), 0),
    ) -> None:
        self._view = view
        self._reservations = reservations
        self._listing_age = listing_age
        self._stale_seconds = stale_seconds
        self._overuse = overuse

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        view = self._view()
        yield from _sampling(view)
        yield from _health(view)
        yield _processes(view, self._stale_seconds)
        yield _throttling(view, self._stale_seconds)
        yield _events(view)
        yield from _shares(*self._overuse())
        yield from self._obedience()

    def _obedience(self) -> Iterable[Metric]:
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
            yield GaugeMetricFamily("gpufleet_agent_listing_age_seconds", "Age of the last PodResources list.", age)


def _sampling(view: NodeSnapshot) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "gpufleet_agent_hardware_available", "1 while the driver answers, else 0.", int(view.unavailable is None)
    )
    yield CounterMetricFamily("gpufleet_agent_samples", "Good samples of all devices.", view.samples)
    dropped = CounterMetricFamily(
        "gpufleet_agent_samples_dropped", "Samples dropped, by reason (Invalid, ReadFailed).", labels=["reason"]
    )
    for reason, count in sorted(view.dropped.items()):
        dropped.add_metric([reason], count)
    yield dropped
    age = GaugeMetricFamily(
        "gpufleet_agent_sample_age_seconds", "Age of a device's last good sample.", labels=["gpu", "UUID"]
    )
    for device in view.devices:
        if device.sample_age_seconds is not None:
            age.add_metric([str(device.info.index), device.info.uuid], device.sample_age_seconds)
    yield age


def _health(view: NodeSnapshot) -> Iterable[Metric]:
    states = Counter(device.health.state for device in view.devices)
    devices = GaugeMetricFamily("gpufleet_agent_devices", "Devices of this node, by state of health.", labels=["state"])
    for state in HealthState:
        devices.add_metric([state.value], states[state])
    yield devices
    healthy = GaugeMetricFamily(
        "gpufleet_agent_device_healthy", "1 while no fault of the device stands, else 0.", labels=["gpu", "UUID"]
    )
    faults = GaugeMetricFamily(
        "gpufleet_agent_device_fault", "Always 1: a fault that stands, by its code.", labels=["gpu", "UUID", "code"]
    )
    warnings = GaugeMetricFamily(
        "gpufleet_agent_device_warning",
        "Always 1: a warning that stands, by its code.",
        labels=["gpu", "UUID", "code"],
    )
    for device in view.devices:
        labels = [str(device.info.index), device.info.uuid]
        healthy.add_metric(labels, int(device.health.state is HealthState.HEALTHY))
        for reason in device.health.reasons:
            faults.add_metric([*labels, reason.code], 1)
        for warning in device.health.warnings:
            warnings.add_metric([*labels, warning.code], 1)
    yield from (healthy, faults, warnings)


def _processes(view: NodeSnapshot, stale_seconds: float) -> Metric:
    processes = GaugeMetricFamily(
        "gpufleet_agent_device_processes", "Processes that hold a context on the device.", labels=["gpu", "UUID"]
    )
    for device in view.devices:
        sample, age = device.sample, device.sample_age_seconds
        if sample is not None and sample.process_count is not None and age is not None and age <= stale_seconds:
            processes.add_metric([str(device.info.index), device.info.uuid], sample.process_count)
    return processes


def _throttling(view: NodeSnapshot, stale_seconds: float) -> Metric:
    throttled = GaugeMetricFamily(
        "gpufleet_agent_device_throttled",
        "1 while the clocks are held down for this reason, else 0.",
        labels=["gpu", "UUID", "reason"],
    )
    for device in view.devices:
        sample, age = device.sample, device.sample_age_seconds
        if sample is not None and sample.throttle_reasons is not None and age is not None and age <= stale_seconds:
            for reason in ThrottleReason:
                labels = [str(device.info.index), device.info.uuid, reason.value]
                throttled.add_metric(labels, int(reason in sample.throttle_reasons))
    return throttled


def _shares(uses: tuple[MemoryUsage, ...], standing: tuple[OveruseEpisode, ...], begun: int) -> Iterable[Metric]:
    labels = ["gpu", "UUID", "namespace", "pod", "container"]
    promised = GaugeMetricFamily(
        "gpufleet_agent_share_memory_promised_mebibytes",
        "Memory of a shared device that a holder was promised (in MiB).",
        labels=labels,
    )
    used = GaugeMetricFamily(
        "gpufleet_agent_share_memory_used_mebibytes",
        "Memory of a shared device that the holder's processes use (in MiB).",
        labels=labels,
    )
    overused = GaugeMetricFamily(
        "gpufleet_agent_share_memory_overused",
        "1 while the holder uses more memory than it was promised, else 0.",
        labels=labels,
    )
    over = {(one.use.uuid, one.use.pod_uid) for one in standing}
    for use in uses:
        values = [str(use.index), use.uuid, use.key.namespace, use.key.pod, use.key.container]
        promised.add_metric(values, use.promised_mib)
        if use.used_mib is not None:
            used.add_metric(values, use.used_mib)
        overused.add_metric(values, int((use.uuid, use.pod_uid) in over))
    yield from (promised, used, overused)
    yield CounterMetricFamily(
        "gpufleet_agent_share_overuse_episodes", "Times that a holder began to use more than it was promised.", begun
    )


def _events(view: NodeSnapshot) -> Metric:
    events = CounterMetricFamily(
        "gpufleet_agent_device_events",
        "Events that devices reported by themselves, by kind and code (XidError: the XID).",
        labels=["gpu", "UUID", "kind", "code"],
    )
    for device in view.devices:
        for event in device.events:
            labels = [str(device.info.index), device.info.uuid, event.kind, str(event.code)]
            events.add_metric(labels, event.count)
    return events
