"""Builds the agent of a node from its parts, and runs it."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from gpufleet_agent.devices.base import Hardware
from gpufleet_agent.faults.boot_id import read_boot_id
from gpufleet_agent.faults.file.writer import CheckpointWriter
from gpufleet_agent.faults.handoff import FaultHandoff
from gpufleet_agent.faults.restore import FaultRestorer
from gpufleet_agent.kube.api import KubeApi
from gpufleet_agent.kube.event_recorder import EventRecorder
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.metrics.agent_collector import AgentCollector
from gpufleet_agent.metrics.device_collector import DeviceCollector
from gpufleet_agent.metrics.holder_collector import HolderCollector
from gpufleet_agent.metrics.http import AsyncHandler, Handler, HttpServer
from gpufleet_agent.metrics.probes import LoopWatchdog, probe, scrape
from gpufleet_agent.overuse.monitor import OveruseMonitor
from gpufleet_agent.plugin.advertised_devices import AdvertisedDevices
from gpufleet_agent.plugin.allocation_observer import AllocationFollowUp
from gpufleet_agent.plugin.allocator import PodMatching
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.manager import PluginContext, PluginManager
from gpufleet_agent.plugin.transport import DeviceTransport, ServedByOtherDriver
from gpufleet_agent.podresources.claimed_devices import ClaimedDevices
from gpufleet_agent.podresources.client import PodResourcesClient
from gpufleet_agent.podresources.completeness import CompletenessCheck
from gpufleet_agent.podresources.holdings import Holders, Holdings
from gpufleet_agent.podresources.kubelet_checkpoint import KubeletCheckpoint
from gpufleet_agent.podresources.poller import PodResourcesPoller
from gpufleet_agent.podresources.terminating_pods import TerminatingPods
from gpufleet_agent.processes.pods_with_process import pods_with_process, sees_node_processes
from gpufleet_agent.publish.lease import make_renewer
from gpufleet_agent.publish.rate_limit import make_policy
from gpufleet_agent.publish.status_source import StatusPublisher, StatusSource
from gpufleet_agent.resources import MigStrategy
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.lifecycle import start_component, supervise
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.timing import Timing
from gpufleet_agent.settings import AgentSettings
from gpufleet_api.names import DRA_DRIVER, Transport

log = structlog.get_logger(__name__)

_PARTS = {Transport.DEVICE_PLUGIN: "device plugin", Transport.DRA: "DRA driver"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts of the agent. `build_agent` builds one inside the event loop that `run` uses."""

    settings: AgentSettings
    version: str
    http: HttpServer
    api: KubeApi
    checkpoint: CheckpointWriter | None
    """None: faults survive a restart only in the status."""
    sampler: Sampler
    lister: PodResourcesClient
    plugins: DeviceTransport
    telemetry: TelemetryWatch
    poller: PodResourcesPoller
    events: EventRecorder
    overuse: OveruseMonitor
    publisher: StatusPublisher
    watchdog: LoopWatchdog
    status_changed: VersionSignal
    """Notified when the status should be written without waiting for the next tick."""
    devices_changed: VersionSignal
    """Notified when the list of devices, or the health of a device, changed."""

    async def run(self) -> None:
        """Starts all parts and runs them until cancelled; then, or on an error, closes all of them.

        Raises:
            ComponentError: A part did not start, or ended.
        """
        async with AsyncExitStack() as stack:
            # First, so that probes are answered while a driver is slow to open.
            await start_component(stack, "HTTP server", self.http.start, self.http.close)
            await start_component(stack, "apiserver client", _nothing, self.api.close)
            if self.checkpoint is not None:
                # Before the sampler, so that no device is reported without its faults, and closed after it.
                await start_component(stack, "checkpoint", self.checkpoint.start, self.checkpoint.close)
            await start_component(stack, "sampler", self.sampler.start, self.sampler.close)
            await start_component(stack, "PodResources client", _nothing, self.lister.close)
            await start_component(stack, _PARTS[self.settings.transport], self.plugins.start, self.plugins.close)
            log.info("agent started", version=self.version, node=self.settings.node_name)
            if self.settings.pod_matching is not PodMatching.POD_RESOURCES:
                log.warning("pods are matched for diagnosis only", pod_matching=self.settings.pod_matching)
            beat = self.watchdog.register
            checkpoint = {} if self.checkpoint is None else {"checkpoint": self.checkpoint.run(beat("checkpoint"))}
            await supervise(
                {
                    **checkpoint,
                    "GPUTelemetry watch": self.telemetry.run(),
                    "PodResources poll": self.poller.run(beat("PodResources poll")),
                    **self.plugins.loops(self.telemetry.wait_synced, beat),
                    "events": self.events.run(),
                    "overuse monitor": self.overuse.run(beat("overuse monitor")),
                    "publisher": self.publisher.run(beat("publisher")),
                    "health": self._forward_health(),
                    "sampler": self._raise_sampler_failure(),
                }
            )

    @property
    def http_port(self) -> int:
        """The port of /metrics, once started."""
        return self.http.port

    async def _forward_health(self) -> None:
        # The first change is forwarded without waiting: it may have come before this loop began.
        seen = self.sampler.snapshot().health_version
        while True:
            self.devices_changed.notify()
            self.status_changed.notify()
            seen = await self.sampler.changed(seen)

    async def _raise_sampler_failure(self) -> None:
        raise await self.sampler.failed()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """Objects that several parts read from or report to."""

    settings: AgentSettings
    version: str
    boot_id: str | None
    registry: CollectorRegistry
    instruments: Instruments
    status_changed: VersionSignal
    devices_changed: VersionSignal
    timing: Timing
    sampler: Sampler
    restorer: FaultRestorer
    telemetry: TelemetryWatch
    events: EventRecorder
    holdings: Holdings
    completeness: CompletenessCheck
    terminating_pods: TerminatingPods

    @property
    def by_profile(self) -> bool:
        """Whether each kind of MIG partition has a resource of its own."""
        return self.settings.mig_strategy is MigStrategy.MIXED

    def holders(self) -> Holders:
        return self.holdings.holders(self.telemetry.assignments or ())


def build_agent(settings: AgentSettings, hardware: Hardware, api: KubeApi, rng: random.Random) -> Agent:
    """Builds an agent. Must be called inside the event loop that it runs in.

    Args:
        settings: The command line.
        hardware: The node's GPUs.
        api: This node's GPUTelemetry object, and events.
        rng: Source of all jitter.
    """
    base = _build_base(settings, hardware, api, rng)
    overuse = OveruseMonitor(
        snapshot=base.sampler.snapshot,
        holders=base.holders,
        record=base.events.record,
        changes=base.status_changed,
        clock=time.time,
        # As long as a list of processes may be valid.
        stale_seconds=3 * base.timing.slow + base.timing.sample,
    )
    lister = PodResourcesClient(settings.pod_resources_socket)
    in_flight = InFlightAllocation()
    claims = ClaimedDevices(api.claimable_devices, time.monotonic)
    poller = PodResourcesPoller(
        lister,
        base.holdings,
        base.completeness,
        claims=claims,
        terminating_pods=base.terminating_pods,
        assignments=lambda: base.telemetry.assignments,
        idle=in_flight.idle,
        changes=base.status_changed,
        counters=base.instruments,
        rng=rng,
    )
    plugins: DeviceTransport = (
        _build_driver(base, api, claims, poller, rng)
        if settings.transport is Transport.DRA
        else _build_plugins(base, in_flight, poller)
    )
    publisher = _build_publisher(base, api, overuse, plugins, rng)
    watchdog = LoopWatchdog(time.monotonic)
    return Agent(
        settings=settings,
        version=base.version,
        http=_build_http(base, overuse, plugins, publisher, watchdog),
        api=api,
        checkpoint=_build_checkpoint(base, publisher),
        sampler=base.sampler,
        lister=lister,
        plugins=plugins,
        telemetry=base.telemetry,
        poller=poller,
        events=base.events,
        overuse=overuse,
        publisher=publisher,
        watchdog=watchdog,
        status_changed=base.status_changed,
        devices_changed=base.devices_changed,
    )


def _build_base(settings: AgentSettings, hardware: Hardware, api: KubeApi, rng: random.Random) -> _Base:
    agent_version = version("gpufleet")
    registry = CollectorRegistry()
    instruments = Instruments(registry, agent_version)
    status_changed = VersionSignal()
    boot_id = read_boot_id()
    timing = Timing(sample=settings.sample_seconds, window=settings.window_seconds)
    sampler = Sampler(hardware, timing=timing)
    decode_errors = instruments.decode_errors.labels
    restorer = FaultRestorer(boot_id, sampler.restore, sampler.acknowledge, decode_errors("Status").inc)
    stored = KubeletCheckpoint(settings.device_plugin_dir)
    telemetry = TelemetryWatch(api, status_changed, rng, restorer.observe, unreadable=decode_errors("Object").inc)
    return _Base(
        settings=settings,
        version=agent_version,
        boot_id=boot_id,
        registry=registry,
        instruments=instruments,
        status_changed=status_changed,
        devices_changed=VersionSignal(),
        timing=timing,
        sampler=sampler,
        restorer=restorer,
        telemetry=telemetry,
        events=EventRecorder(api),
        holdings=Holdings(settings.shared_resource),
        completeness=CompletenessCheck(settings.pod_resources_socket, settings.own_pod),
        terminating_pods=TerminatingPods(
            pods_with_process, stored.pod_uids, stored.unchanged, sees_processes=sees_node_processes()
        ),
    )


def _build_plugins(base: _Base, in_flight: InFlightAllocation, poller: PodResourcesPoller) -> PluginManager:
    settings = base.settings
    advertised = AdvertisedDevices(base.sampler, by_profile=base.by_profile)
    context = PluginContext(
        directory=settings.device_plugin_dir,
        devices=advertised.list,
        devices_changed=base.devices_changed,
        listings=poller,
        telemetry=base.telemetry,
        holdings=base.holdings,
        in_flight=in_flight,
        observer=AllocationFollowUp(base.holdings, poller, base.events),
        injector=DeviceInjector(settings.injection, advertised.list, base.devices_changed),
        counters=base.instruments,
        matching=settings.pod_matching,
    )
    return PluginManager(settings.served, context)


def _build_driver(
    base: _Base, api: KubeApi, claims: ClaimedDevices, poller: PodResourcesPoller, rng: random.Random
) -> DeviceTransport:
    settings = base.settings
    if settings.dra_driver != DRA_DRIVER:
        return ServedByOtherDriver()
    # Imported only where it is used: most agents serve a device plugin.
    from gpufleet_agent.dra.build import build_driver  # noqa: PLC0415 - see above
    from gpufleet_agent.dra.server import DriverSockets  # noqa: PLC0415 - see above

    return build_driver(
        node=settings.node_name,
        sockets=DriverSockets(settings.plugins_dir, settings.plugins_registry_dir),
        injection=settings.injection,
        api=api,
        sampler=base.sampler,
        advertised=AdvertisedDevices(base.sampler, by_profile=False).list,
        telemetry=base.telemetry,
        holdings=base.holdings,
        claims=claims,
        poller=poller,
        counters=base.instruments,
        devices_changed=base.devices_changed,
        rng=rng,
    )


def _build_publisher(
    base: _Base, api: KubeApi, overuse: OveruseMonitor, plugins: DeviceTransport, rng: random.Random
) -> StatusPublisher:
    status = StatusSource(
        sampler=base.sampler,
        telemetry=base.telemetry,
        holdings=base.holdings,
        terminating_pods=base.terminating_pods,
        overuse=overuse,
        plugins=plugins,
        agent_version=base.version,
        boot_id=base.boot_id,
        transport=base.settings.transport,
        with_partitions=not base.by_profile,
    )
    settings = base.settings
    return StatusPublisher(
        api=api,
        telemetry=base.telemetry,
        observe=status.observe,
        changes=base.status_changed,
        policy=make_policy(settings.heartbeat_seconds, settings.report_seconds, settings.sample_seconds),
        counters=base.instruments,
        rng=rng,
        lease=make_renewer(api, settings.own_pod, settings.heartbeat_seconds, base.instruments),
    )


def _build_checkpoint(base: _Base, publisher: StatusPublisher) -> CheckpointWriter | None:
    if base.settings.state_dir is None:
        return None
    return CheckpointWriter(
        base.settings.state_dir,
        node=base.settings.node_name,
        boot_id=base.boot_id,
        state=FaultHandoff(base.sampler, base.restorer, base.telemetry, lambda: publisher.attempted),
        changes=base.devices_changed,
        counters=base.instruments,
    )


def _build_http(
    base: _Base, overuse: OveruseMonitor, plugins: DeviceTransport, publisher: StatusPublisher, watchdog: LoopWatchdog
) -> HttpServer:
    settings, registry, snapshot = base.settings, base.registry, base.sampler.snapshot
    ProcessCollector(registry=registry)
    node_name = settings.node_name
    registry.register(DeviceCollector(snapshot, base.holders, node_name, settings.window_seconds, settings.metrics))
    registry.register(HolderCollector(snapshot, base.holders, node_name, lambda: overuse.containers))
    registry.register(
        AgentCollector(
            snapshot,
            node_name,
            lambda: _reservations(base.telemetry),
            lambda: _list_age(base.holdings),
            stale_seconds=settings.window_seconds,
            overuse=lambda: (overuse.usages, overuse.active, overuse.begun),
        )
    )
    readiness = {
        _PARTS[settings.transport]: lambda: _not_registered(plugins),
        "status": lambda: _not_published(publisher, base.holdings, base.completeness),
    }
    routes: dict[str, Handler | AsyncHandler] = {
        "/metrics": scrape(registry),
        "/healthz": probe({"loops": watchdog.check}),
        "/readyz": probe(readiness),
    }
    return HttpServer(settings.listen_host, settings.listen_port, routes)


def _reservations(telemetry: TelemetryWatch) -> tuple[int, int] | None:
    current = telemetry.current
    return None if current is None else (len(current.assignments), current.generation)


def _list_age(holdings: Holdings) -> float | None:
    at = holdings.listed_at
    return None if at is None else asyncio.get_running_loop().time() - at


def _not_registered(plugins: DeviceTransport) -> str | None:
    unregistered = plugins.unregistered()
    return f"not registered with the kubelet: {', '.join(unregistered)}" if unregistered else None


def _not_published(publisher: StatusPublisher, holdings: Holdings, completeness: CompletenessCheck) -> str | None:
    if publisher.published:
        return None
    problem = holdings.listed_at is None and completeness.problem
    return f"not published yet: {problem}" if problem else "not published yet"


async def _nothing() -> None:
    """Starts parts that need no start."""
