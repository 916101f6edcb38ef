"""The agent put together: which part reads from which, and in which order they start."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from gpufleet_agent.devices.base import Hardware
from gpufleet_agent.faults.file.writer import CheckpointWriter
from gpufleet_agent.faults.restore import FaultRestorer, read_boot_id
from gpufleet_agent.kube.api import KubeApi
from gpufleet_agent.kube.event_recorder import EventRecorder
from gpufleet_agent.kube.model import PodEvent
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.metrics.agent_collector import AgentCollector
from gpufleet_agent.metrics.device_collector import DeviceCollector
from gpufleet_agent.metrics.http import AsyncHandler, Handler, HttpServer
from gpufleet_agent.metrics.probes import LoopWatchdog, probe, scrape
from gpufleet_agent.overuse.monitor import OveruseMonitor
from gpufleet_agent.plugin.allocator import PodMatching
from gpufleet_agent.plugin.foreign_processes import in_use
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.inject.strategies import DeviceInjector
from gpufleet_agent.plugin.manager import PluginContext, PluginManager
from gpufleet_agent.plugin.types import AdvertisedDevice, ManagedAllocation, Rejection, UnmanagedAllocation
from gpufleet_agent.podresources.client import PodResourcesClient
from gpufleet_agent.podresources.completeness import CompletenessCheck
from gpufleet_agent.podresources.holdings import Holders, Holdings
from gpufleet_agent.podresources.poller import PodResourcesPoller
from gpufleet_agent.publish.deadband import stale_after
from gpufleet_agent.publish.payload import Status, build_status
from gpufleet_agent.publish.publisher import Publisher
from gpufleet_agent.publish.rate_limit import WritePolicy
from gpufleet_agent.resources import MigStrategy
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.lifecycle import start_component, supervise
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.saved_state import Checkpoint
from gpufleet_agent.sampling.snapshot import HealthState
from gpufleet_agent.sampling.timing import Timing
from gpufleet_agent.settings import Settings
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)


class Agent:
    """Everything that runs on a node. Made inside the event loop that it runs in.

    Args:
        settings: The command line.
        hardware: The node's GPUs.
        api: This node's GPUTelemetry object, and events.
        rng: Source of all jitter.
    """

    def __init__(self, settings: Settings, hardware: Hardware, api: KubeApi, rng: random.Random) -> None:
        self._settings = settings
        self._api = api
        self._version = version("gpufleet")
        self._registry = CollectorRegistry()
        self._counters = Instruments(self._registry, self._version)
        self._changes = VersionSignal()
        """Something changed that the status should tell at once."""
        self._devices_changed = VersionSignal()
        """The list of devices, or the health of one, changed."""
        timing = Timing(sample=settings.sample_seconds, window=settings.window_seconds)
        self._sampler = Sampler(hardware, timing=timing)
        self._boot_id = read_boot_id()
        decode_errors = self._counters.decode_errors.labels
        self._memory = FaultRestorer(
            self._boot_id, self._sampler.restore, self._sampler.acknowledge, decode_errors("Status").inc
        )
        self._own = TelemetryWatch(
            api, self._changes, rng, self._memory.observe, unreadable=decode_errors("Object").inc
        )
        self._holdings = Holdings(settings.shared_resource)
        self._lister = PodResourcesClient(settings.pod_resources_socket)
        self._admission = InFlightAllocation()
        self._completeness = CompletenessCheck(settings.pod_resources_socket, settings.own_pod)
        self._poller = PodResourcesPoller(
            self._lister,
            self._holdings,
            self._completeness,
            quiet=self._admission.quiet,
            changes=self._changes,
            counters=self._counters,
            rng=rng,
        )
        self._teller = EventRecorder(api)
        self._apart = settings.mig_strategy is MigStrategy.MIXED
        """Partitions have resources of their own, which the operator doesn't hand out."""
        self._overuse = OveruseMonitor(
            view=self._sampler.view,
            holders=self._holders,
            tell=self._teller.tell,
            changes=self._changes,
            clock=time.time,
            # As long as a list of processes may stand.
            stale_seconds=3 * timing.slow + timing.sample,
        )
        self._plugins = self._make_plugins()
        self._publisher = Publisher(
            api=api,
            own=self._own,
            build=self._status,
            changes=self._changes,
            pace=WritePolicy(heartbeat=settings.heartbeat_seconds, old=stale_after(settings.sample_seconds)),
            counters=self._counters,
            rng=rng,
        )
        self._file: Checkpoint | None = None
        """What an earlier process kept on the node."""
        self._keeper = self._make_keeper()
        self._watchdog = LoopWatchdog(time.monotonic)
        self._http = self._make_http()

    async def run(self) -> None:
        """Start everything and keep it running until this is cancelled; then, or on an error, everything is released.

        Raises:
            PartError: A part did not start, or ended.
        """
        async with AsyncExitStack() as stack:
            # First, so that the probes are answered while a driver takes its time.
            await start_component(stack, "HTTP server", self._http.start, self._http.close)
            await start_component(stack, "apiserver client", _nothing, self._api.close)
            if self._keeper is not None:
                # Before the sampler, so that no device is told of without its faults, and so that it closes after it.
                await start_component(stack, "checkpoint", self._keeper.start, self._keeper.close)
            await start_component(stack, "sampler", self._sampler.start, self._sampler.close)
            await start_component(stack, "PodResources client", _nothing, self._lister.close)
            await start_component(stack, "device plugin", self._plugins.start, self._plugins.close)
            log.info("agent started", version=self._version, node=self._settings.node_name)
            if self._settings.handover is not PodMatching.ASKING:
                log.warning(
                    "the hand-over guesses which pod asks: for diagnosis only", handover=self._settings.handover
                )
            beat = self._watchdog.register
            keeping = {} if self._keeper is None else {"checkpoint": self._keeper.run(beat("checkpoint"))}
            await supervise(
                {
                    **keeping,
                    "own object": self._own.run(),
                    "PodResources poll": self._poller.run(beat("PodResources poll")),
                    **self._plugins.loops(self._own.known, beat),
                    "events": self._teller.run(),
                    "over-use": self._overuse.run(beat("over-use")),
                    "publisher": self._publisher.run(beat("publisher")),
                    "health": self._forward_health(),
                    "sampler": self._sampler_failure(),
                }
            )

    @property
    def http_port(self) -> int:
        """Where /metrics is, once started."""
        return self._http.port

    def _make_keeper(self) -> CheckpointWriter | None:
        directory = self._settings.state_dir
        if directory is None:
            return None
        return CheckpointWriter(
            directory,
            node=self._settings.node_name,
            boot_id=self._boot_id,
            remember=self._remember,
            take_over=self._take_over,
            changes=self._devices_changed,
            counters=self._counters,
        )

    def _take_over(self, file: Checkpoint) -> None:
        self._file = file
        self._sampler.restore(file.past)
        self._memory.remember(file)  # after that: what comes late may have been acknowledged meanwhile

    def _remember(self) -> Checkpoint | None:
        past = self._sampler.remembered()
        if past is None:
            return None
        current = self._own.current
        observed = timestamps.to_epoch(current.status.get("observedAt")) if current else None
        reports = {self._publisher.attempted, observed}
        if current is None and self._file is not None:
            # Nobody has seen the object yet, so it may still be as it was for the process before this one: older than
            # that one's file, also where the clock was set back since.
            reports |= self._file.reports
            past = replace(past, reported_at=max(past.reported_at, self._file.past.reported_at))
        return Checkpoint(past, self._memory.acknowledged, frozenset(one for one in reports if one is not None))

    def _make_plugins(self) -> PluginManager:
        around = PluginContext(
            directory=self._settings.device_plugin_dir,
            devices=self._known_devices,
            devices_changed=self._devices_changed,
            lister=self._lister,
            own=self._own,
            holdings=self._holdings,
            admission=self._admission,
            granted=self._granted,
            refused=self._refused,
            injection=DeviceInjector(self._settings.injection, self._known_devices, self._devices_changed),
            counters=self._counters,
            listed=self._poller.take_over,
            handover=self._settings.handover,
        )
        return PluginManager(self._settings.served, around)

    def _make_http(self) -> HttpServer:
        settings = self._settings
        ProcessCollector(registry=self._registry)
        self._registry.register(
            DeviceCollector(self._sampler.view, self._holders, settings.node_name, settings.window_seconds)
        )
        self._registry.register(
            AgentCollector(
                self._sampler.view,
                self._reservations,
                self._listing_age,
                settings.window_seconds,
                lambda: (self._overuse.uses, self._overuse.standing, self._overuse.begun),
            )
        )
        routes: dict[str, Handler | AsyncHandler] = {
            "/metrics": scrape(self._registry),
            "/healthz": probe({"loops": self._watchdog.check}),
            "/readyz": probe({"device plugin": self._not_registered, "status": self._not_published}),
        }
        return HttpServer(settings.listen_host, settings.listen_port, routes)

    def _known_devices(self) -> tuple[AdvertisedDevice, ...]:
        return tuple(
            AdvertisedDevice(
                device.info.uuid,
                device.info.index,
                device.health.state is HealthState.HEALTHY,
                profile=device.info.profile if self._apart else None,
                in_use=in_use(device.sample),
                nodes=device.info.nodes,
            )
            for device in self._sampler.view().devices
            # A partition whose kind the driver doesn't tell is of no resource, least of all of that of whole GPUs.
            if not (self._apart and device.info.parent is not None and device.info.profile is None)
        )

    def _granted(self, granted: ManagedAllocation | UnmanagedAllocation) -> None:
        if isinstance(granted, ManagedAllocation):
            self._holdings.honour(granted.assignment)
        self._poller.poke()

    def _refused(self, refusal: Rejection) -> None:
        for claim in refusal.claims:
            event = PodEvent(
                namespace=claim.namespace,
                pod=claim.pod,
                pod_uid=claim.pod_uid,
                reason=refusal.reason.value,
                message=refusal.message,
            )
            self._teller.tell(event)

    def _holders(self) -> Holders:
        return self._holdings.holders(self._own.assignments or ())

    def _status(self) -> Status | None:
        if self._holdings.listed_at is None:
            # Not known who holds what, and a device without holders is one that may be given away. What an earlier
            # process published stands meanwhile, and ages.
            return None
        view = self._sampler.view()
        if self._apart:
            # What the status names, the operator may reserve, and a reservation is of our own resources.
            view = replace(view, devices=tuple(device for device in view.devices if device.info.parent is None))
        return build_status(
            view,
            self._holders(),
            generation=self._own.generation,
            observed_at=time.time(),
            agent_version=self._version,
            boot_id=self._boot_id,
            overuse=self._overuse.standing,
            withheld=self._plugins.withheld(),
        )

    def _reservations(self) -> tuple[int, int] | None:
        current = self._own.current
        return None if current is None else (len(current.assignments), current.generation)

    def _listing_age(self) -> float | None:
        at = self._holdings.listed_at
        return None if at is None else asyncio.get_running_loop().time() - at

    def _not_registered(self) -> str | None:
        unheard = self._plugins.unregistered()
        return f"not registered with the kubelet: {', '.join(unheard)}" if unheard else None

    def _not_published(self) -> str | None:
        if self._publisher.published:
            return None
        unlisted = self._holdings.listed_at is None and self._completeness.problem
        return f"not published yet: {unlisted}" if unlisted else "not published yet"

    async def _forward_health(self) -> None:
        # The first change is told without waiting: it may have come before anybody listened.
        seen = self._sampler.view().health_version
        while True:
            self._devices_changed.notify()
            self._changes.notify()
            seen = await self._sampler.changed(seen)

    async def _sampler_failure(self) -> None:
        raise await self._sampler.failed()


async def _nothing() -> None:
    """For parts that have nothing to start, only to close."""
