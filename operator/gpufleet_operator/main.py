"""The operator's process: connects, fills the caches, then watches and decides until it is told to stop."""

import asyncio
import contextlib
import platform
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import kopf
import structlog
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from prometheus_client import CollectorRegistry

from gpufleet_common import logs
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.reader import Reader
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, load_config
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, GoneError, NotFoundError, UnavailableError
from gpufleet_operator.kube.events import Recorder
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.kube.retry import patiently
from gpufleet_operator.kube.writer import ApiCluster
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Telemetry, Workload
from gpufleet_operator.runtime import kopf_handlers
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.http_server import Health, serve
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_operator.settings import Settings, parse

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 120.0
"""A pass that takes longer than this, or one of its writes, is stuck."""


class StopSignal(Exception):  # noqa: N818 - not an error: the way out of a task group
    """SIGTERM or SIGINT."""


@dataclass(slots=True)
class Collections:
    """The five collections that decisions are made from."""

    workloads: Informer[Workload]
    telemetry: Informer[Telemetry]
    pods: Informer[Pod]
    nodes: Informer[Node]
    others: Informer[BoundPod]
    nodes_listed: asyncio.Event = field(default_factory=asyncio.Event)
    others_listed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, api: Api, cache: Cache) -> "Collections":
        """Wire the collections to the caches."""
        return cls(
            workloads=Informer(api, paths.WORKLOADS, {}, cache.reader.workload, cache.workloads),
            telemetry=Informer(api, paths.TELEMETRIES, {}, cache.reader.telemetry, cache.telemetry),
            pods=Informer(api, paths.PODS, paths.OUR_PODS, cache.reader.pod, cache.pods),
            nodes=Informer(api, paths.NODES, {}, cache.reader.node, cache.nodes),
            others=Informer(api, paths.PODS, paths.OTHER_PODS, cache.reader.bound_pod, cache.others),
        )

    async def list_ours(self) -> None:
        """Lists of what kopf watches. Pods come first: a released pod must never be seen before its reservation.

        Raises:
            NotFoundError: the CRDs aren't installed.
        """
        await self.pods.list()
        try:
            await self.telemetry.list()
            await self.workloads.list()
        except NotFoundError as error:
            raise NotFoundError("the gpufleet.dev CRDs are not installed", error.code) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit status 0 after SIGTERM, 1 when something failed, 2 for a bad command line."""
    settings = parse(arguments)
    logs.configure(settings.log_level, settings.log_format)
    try:
        config = load_config()
    except ConfigError as error:
        log.error("no access to an apiserver", error=str(error))  # noqa: TRY400 - expected: the message says it all
        sys.exit(1)
    try:
        asyncio.run(run(settings, config))
    except* StopSignal:
        log.info("stopped")
    except* (ApiError, OSError) as group:
        log.error("could not go on", errors=_messages(group))  # noqa: TRY400 - as above
        sys.exit(1)


def _messages(group: BaseExceptionGroup[BaseException]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


async def run(settings: Settings, config: SingleConfig) -> None:
    """Everything, until a signal or an error. Nothing is left running afterwards.

    Raises:
        ExceptionGroup: of StopSignal after a signal, else of what went wrong.
    """
    metrics = Metrics(CollectorRegistry())
    cache, clock = Cache(Reader(metrics.count_decode_error)), ServerClock()
    api = Api.connect(config, clock)
    cluster = ApiCluster(api)
    reconciler = Reconciler(
        cache,
        Executor(cluster, cache, clock, Recorder(cluster, platform.node())),
        settings.limits(),
        clock,
        metrics,
        name_seed=lambda: secrets.token_hex(8),
        resync_interval_seconds=settings.resync_interval_seconds,
    )
    health = Health(lambda: reconciler.last_sign, _PATIENCE_SECONDS)
    collections = Collections.of(api, cache)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        await stack.enter_async_context(serve(settings.host, settings.port, health, metrics.registry))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collections.nodes.run(collections.nodes_listed.set))
            tasks.create_task(collections.others.run(collections.others_listed.set))
            tasks.create_task(_decide(reconciler, collections))
            tasks.create_task(_resync(collections, settings.relist_interval_seconds))
            # When kopf ends, it cancels all tasks that were started after it: so it comes last.
            tasks.create_task(_observe(cache, config))


async def _decide(reconciler: Reconciler, collections: Collections) -> None:
    """No decision before the caches are complete: a pod that isn't listed yet would look like a deleted one."""
    async for attempt in patiently(UnavailableError, GoneError):
        with attempt:
            await collections.list_ours()
    await collections.nodes_listed.wait()
    await collections.others_listed.wait()
    log.info("caches are complete")
    await reconciler.run()


async def _resync(collections: Collections, seconds: float) -> None:
    """Compare the caches with complete lists, for deletions that kopf can't tell after a list of its own."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await collections.list_ours()
        except (UnavailableError, GoneError) as error:
            log.warning("resync failed, trying again later", error=str(error))


async def _observe(cache: Cache, config: SingleConfig) -> None:
    """Run kopf. It takes SIGTERM and SIGINT for itself, so ours are put on after it has started."""
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
        raise RuntimeError("kopf ended by itself")


async def _until(end: asyncio.Future[None]) -> None:
    await end
