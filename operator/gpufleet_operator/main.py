"""The operator's process: connects, fills the caches, then watches and decides until SIGTERM."""

import asyncio
import contextlib
import gc
import platform
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import kopf
import structlog
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from prometheus_client import CollectorRegistry

from gpufleet_common import logs
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.cache.store import Store, Stored
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, load_config, retry_forever
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, GoneError, NotFoundError, UnauthorizedError, UnavailableError
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.kube.lease_poller import LeasePoller
from gpufleet_operator.kube.writer import ApiWriter
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Service, Telemetry, Workload
from gpufleet_operator.runtime import kopf_handlers
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.http_server import ReconcilerHealth, serve
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_operator.settings import OperatorSettings, parse

T = TypeVar("T", bound=Stored)

log = structlog.get_logger(__name__)

_PROGRESS_TIMEOUT_SECONDS = 120.0
"""A pass, or one of its writes, that takes longer is stuck."""


_UNAUTHORIZED_FIX = (
    "if the ServiceAccount was deleted and created again, delete the operator's pod: until then the kubelet mounts the "
    "token of the old one"
)


_GC_THRESHOLDS = (50_000, 50, 1000)
"""A pass makes and drops thousands of objects, and none of them in cycles: the default of 700 only costs time."""


def tune_garbage_collector() -> None:
    """Sets the thresholds of the garbage collector for a process that keeps many objects."""
    gc.set_threshold(*_GC_THRESHOLDS)


def freeze_garbage_collector() -> None:
    """Excludes the objects that exist now from later collections, and first collects those that are garbage.

    Call it when the caches are complete, and after each list. A collection that visits a million cached objects blocks
    for a second. Cached objects are not in cycles, so they are freed although they are excluded.
    """
    gc.collect()
    gc.freeze()


class StopSignal(Exception):  # noqa: N818 - not an error: ends a task group
    """SIGTERM or SIGINT."""


@dataclass(slots=True)
class Informers:
    """The collections that decisions depend on."""

    workloads: Informer[Workload]
    telemetry: Informer[Telemetry]
    pods: Informer[Pod]
    nodes: Informer[Node]
    other_pods: Informer[BoundPod]
    services: Informer[Service]
    nodes_listed: asyncio.Event = field(default_factory=asyncio.Event)
    other_pods_listed: asyncio.Event = field(default_factory=asyncio.Event)
    services_listed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, api: Api, cache: Cache) -> "Informers":
        """Connects each collection to its store."""

        def informer(path: str, params: Mapping[str, str], store: Store[T]) -> Informer[T]:
            return Informer(api, path, params, store.decode, store)

        return cls(
            workloads=informer(paths.WORKLOADS, {}, cache.workloads),
            telemetry=informer(paths.TELEMETRIES, {}, cache.telemetry),
            pods=informer(paths.PODS, paths.OF_WORKLOADS, cache.pods),
            nodes=informer(paths.NODES, {}, cache.nodes),
            other_pods=informer(paths.PODS, paths.OTHER_PODS, cache.other_pods),
            services=informer(paths.SERVICES, paths.OF_WORKLOADS, cache.services),
        )

    async def list_watched_by_kopf(self) -> None:
        """Lists what kopf watches. Pods come first: a released pod must never be seen before its reservation.

        Raises:
            NotFoundError: The CRDs are not installed.
        """
        await self.pods.list()
        try:
            await self.telemetry.list()
            await self.workloads.list()
        except NotFoundError as error:
            raise NotFoundError("the gpufleet.dev CRDs are not installed", error.code) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the operator. Exit status 0 after SIGTERM, 1 after an error, 2 for an invalid command line."""
    settings = parse(arguments)
    logs.configure(settings.log_level, settings.log_format)
    try:
        config = load_config()
    except ConfigError as error:
        # Without a traceback: the message is enough.
        log.error("operator not started", error=f"no configuration for the apiserver: {error}")  # noqa: TRY400
        sys.exit(1)
    errors: list[str] = []
    unauthorized = False
    try:
        asyncio.run(run(settings, config))
    except* StopSignal:
        log.info("operator stopped")
    except* (ApiError, OSError, kopf.LoginError) as group:
        errors, unauthorized = _messages(group), group.subgroup(UnauthorizedError) is not None
    # Not in the except* block: Python would report SystemExit as part of a group, with a traceback.
    if errors:
        log.error("exiting on error", errors=errors)
    if unauthorized:
        log.error("the apiserver rejects the operator's token", fix=_UNAUTHORIZED_FIX)
    if errors:
        sys.exit(1)


def _messages(group: BaseExceptionGroup[BaseException]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


async def run(settings: OperatorSettings, config: SingleConfig) -> None:
    """Runs all tasks until a signal or an error, and ends all of them.

    Raises:
        ExceptionGroup: Of StopSignal after a signal, else of the errors.
    """
    tune_garbage_collector()
    clock = ServerClock()
    metrics = Metrics(CollectorRegistry(), clock.now)
    cache = Cache(Decoder(metrics.count_decode_error))
    api = Api.connect(config, clock)
    writer = ApiWriter(api)
    reconciler = Reconciler(
        cache,
        Executor(writer, cache, clock, ObjectEventRecorder(writer, platform.node())),
        settings.limits(),
        clock,
        metrics,
        name_seed=lambda: secrets.token_hex(8),
        resync_interval_seconds=settings.resync_interval_seconds,
    )
    health = ReconcilerHealth(lambda: reconciler.last_progress, _PROGRESS_TIMEOUT_SECONDS)
    informers = Informers.of(api, cache)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        await stack.enter_async_context(serve(settings.host, settings.port, health, metrics.registry))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.nodes.run(informers.nodes_listed.set))
            tasks.create_task(informers.other_pods.run(informers.other_pods_listed.set))
            tasks.create_task(informers.services.run(informers.services_listed.set))
            tasks.create_task(_reconcile(reconciler, informers))
            tasks.create_task(LeasePoller(api, cache, clock).run(settings.lease_poll_interval_seconds))
            tasks.create_task(_relist(informers, cache, settings.relist_interval_seconds))
            # Last, because kopf cancels all tasks that were started after it when it ends.
            tasks.create_task(_run_kopf(cache, config))


async def _reconcile(reconciler: Reconciler, informers: Informers) -> None:
    """Decides once the caches are complete: a pod that is not listed yet would look like a deleted one."""
    async for attempt in retry_forever(UnavailableError, GoneError):
        with attempt:
            await informers.list_watched_by_kopf()
    await informers.nodes_listed.wait()
    await informers.other_pods_listed.wait()
    await informers.services_listed.wait()
    log.info("caches synced")
    freeze_garbage_collector()
    await reconciler.run()


async def _relist(informers: Informers, cache: Cache, seconds: float) -> None:
    """Compares the caches with complete lists, for deletions that kopf does not report after a list of its own.

    The next pass decides from scratch.
    """
    while True:
        await asyncio.sleep(seconds)
        try:
            await informers.list_watched_by_kopf()
        except (UnavailableError, GoneError) as error:
            log.warning("relist failed, retrying later", error=str(error))
        else:
            cache.tracker.note_everything()
            cache.dirty.set()
            freeze_garbage_collector()


async def _run_kopf(cache: Cache, config: SingleConfig) -> None:
    """Runs kopf. It installs handlers of SIGTERM and SIGINT, so the operator's are installed after its start."""
    existing = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()

    def stop(reason: Exception) -> None:
        if not end.done():
            end.set_exception(reason)

    spawned = await kopf.spawn_tasks(
        registry=kopf_handlers.registry(cache, config, stop),
        settings=kopf_handlers.settings(),
        standalone=True,
        clusterwide=True,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, StopSignal())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_until(end))
        await kopf.run_tasks(spawned, ignored=existing)
        raise RuntimeError("kopf ended unexpectedly")


async def _until(end: asyncio.Future[None]) -> None:
    await end
