"""The operator's process: connects, fills the caches, then watches and decides until SIGTERM."""

import asyncio
import contextlib
import gc
import platform
import secrets
import sys
from collections.abc import Sequence

import structlog
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from prometheus_client import CollectorRegistry

from gpufleet_api.names import OPERATOR_LEASE
from gpufleet_common import logs
from gpufleet_common.deep_documents import accept_deep_documents
from gpufleet_common.trim_memory import release_file_pages, release_free_heap
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.kube.api import Api, load_config
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.demand_writer import ApiDemandWriter
from gpufleet_operator.kube.errors import (
    ApiError,
    CredentialsRejectedError,
    UnauthorizedError,
)
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.kube.lease_poller import LeasePoller
from gpufleet_operator.kube.rejected_requests import DeniedReads
from gpufleet_operator.kube.writer import ApiWriter
from gpufleet_operator.runtime.demands.demand_recorder import DemandRecorder
from gpufleet_operator.runtime.demands.denied_read_events import DeniedReadEvents
from gpufleet_operator.runtime.election_thread import ElectionThread
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.http_server import ReconcilerHealth, serve
from gpufleet_operator.runtime.kueue.admission_checks import AdmissionChecks
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.pacing.token_bucket import TokenBucket
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_operator.runtime.scale_up.autoscaler import Autoscaler
from gpufleet_operator.runtime.watches.informers import Informers
from gpufleet_operator.runtime.watches.optional_informer import follow_optional
from gpufleet_operator.runtime.watches.run_kopf import StopSignal, run_kopf
from gpufleet_operator.settings import OperatorSettings, parse

log = structlog.get_logger(__name__)

_PROGRESS_TIMEOUT_SECONDS = 120.0
"""A pass, or one of its writes, that takes longer is stuck."""


_STATUSES_PER_SECOND, _STATUS_BURST = 250, 500
"""Maximum rate of statuses per second: 10,000 changes take 40 s, and placement continues meanwhile."""

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


def release_unused_memory() -> None:
    """Releases the memory that only imports and the first lists needed. Called once, after the start."""
    freeze_garbage_collector()
    release_file_pages()
    release_free_heap()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the operator. Exit status 0 after SIGTERM, 1 after an error, 2 for an invalid command line."""
    settings = parse(arguments)
    accept_deep_documents()
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
    except* (ApiError, OSError) as group:
        errors, unauthorized = _messages(group), group.subgroup(_is_unauthorized) is not None
    # Not in the except* block: Python would report SystemExit as part of a group, with a traceback.
    if errors:
        log.error("exiting on error", errors=errors)
    if unauthorized:
        log.error("the apiserver rejects the operator's token", fix=_UNAUTHORIZED_FIX)
    if errors:
        sys.exit(1)


def _is_unauthorized(error: BaseException) -> bool:
    """Returns True also for a Lease that was lost because of rejected credentials."""
    return any(isinstance(each, CredentialsRejectedError | UnauthorizedError) for each in (error, error.__cause__))


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
    reads = DeniedReads()
    metrics = Metrics(CollectorRegistry(), clock.now, reads.by_resource)
    cache = Cache(Decoder(metrics.count_decode_error))
    api = Api.connect(config, clock, reads)
    writer = ApiWriter(api)
    election = _election(settings, config, reads)
    events = ObjectEventRecorder(writer, platform.node())
    executor = Executor(
        writer,
        cache,
        clock,
        events,
        may_write=election.may_write if election is not None else lambda: True,
    )
    reconciler = Reconciler(
        cache,
        executor,
        settings.limits(),
        clock,
        metrics,
        name_seed=lambda: secrets.token_hex(8),
        resync_interval_seconds=settings.resync_interval_seconds,
        status_budget=TokenBucket(_STATUSES_PER_SECOND, _STATUS_BURST),
    )
    namespace = settings.lease_namespace or config.namespace or ""
    informers = Informers.of(
        api,
        cache,
        metrics.watch_failures.inc,
        namespace=namespace or "default",
        clock=clock,
        stale_after_seconds=settings.stale_after_seconds,
    )
    recorder = DemandRecorder(
        cache,
        ApiDemandWriter(api),
        settings.limits(),
        clock,
        may_write=election.may_write if election is not None else lambda: True,
    )
    leads = asyncio.Event()

    def may_write() -> bool:
        return reconciler.runs and (election is None or election.may_write())

    denied = DeniedReadEvents(api, events, clock, namespace, platform.node(), may_write=may_write)
    health = ReconcilerHealth(
        lambda: reconciler.last_progress,
        _PROGRESS_TIMEOUT_SECONDS,
        lambda: informers.complete and not reconciler.runs,
        reads.by_resource,
        lambda: election.rejection if election is not None else "",
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        await stack.enter_async_context(serve(settings.host, settings.port, health, metrics.registry))
        # Before the HTTP server ends, which waits for its connections: a standby waits for the Lease.
        if election is not None:
            stack.push_async_callback(election.close)
        stack.push_async_callback(executor.close)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.follow_devices())
            tasks.create_task(informers.nodes.run(informers.nodes_listed.set))
            tasks.create_task(informers.other_pods.run(informers.other_pods_listed.set))
            tasks.create_task(informers.services.run(informers.services_listed.set))
            tasks.create_task(informers.quotas.run(informers.quotas_listed.set))
            if settings.watches_claims:
                tasks.create_task(informers.claims.run(informers.claims_listed.set))
            else:
                informers.claims_listed.set()
            tasks.create_task(follow_optional(informers.demands, informers.demands_listed.set, denied.record))
            listed = informers.agent_leases_listed.set
            tasks.create_task(follow_optional(informers.agent_leases, listed, denied.record, unreadable=listed))
            tasks.create_task(_reconcile(reconciler, informers, election, metrics, leads))
            tasks.create_task(_record_demands(recorder, informers, leads))
            scale_up = settings.scale_up == "true"
            if settings.kueue == "true":
                checks = AdmissionChecks(api, cache, clock, events, may_write=may_write, scale_up=scale_up)
                tasks.create_task(checks.run())
            if scale_up:
                tasks.create_task(Autoscaler(api, cache, clock, settings.limits(), may_write=may_write).run())
            tasks.create_task(LeasePoller(api, cache, clock).run(settings.lease_poll_interval_seconds))
            tasks.create_task(_relist(reconciler, informers, cache, settings.relist_interval_seconds))
            tasks.create_task(
                run_kopf(
                    cache,
                    config,
                    relist=lambda: _list_again(reconciler, informers, cache),
                    failed=metrics.watch_failures.inc,
                )
            )


def _election(settings: OperatorSettings, config: SingleConfig, reads: DeniedReads) -> ElectionThread | None:
    if settings.leader_election != "true":
        return None
    namespace = settings.lease_namespace or config.namespace or "default"
    # Unique for each process: a restarted container must not mistake its predecessor's Lease for its own.
    return ElectionThread(config, namespace, OPERATOR_LEASE, f"{platform.node()}_{secrets.token_hex(4)}", reads)


async def _reconcile(
    reconciler: Reconciler,
    informers: Informers,
    election: ElectionThread | None,
    metrics: Metrics,
    leads: asyncio.Event,
) -> None:
    """Decides once the caches are complete: a pod that is not listed yet would look like a deleted one.

    A standby lists again after it has become the leader: its caches may be older than the last writes of its
    predecessor, and a pod whose reservation it has not seen would be removed.
    """
    metrics.leader.set(0)
    watching = asyncio.create_task(election.watch()) if election is not None else None
    try:
        await informers.fill()
    finally:
        if watching is not None:
            watching.cancel()
    log.info("caches synced")
    release_unused_memory()
    if election is None:
        metrics.leader.set(1)
        leads.set()
        await reconciler.run()
        return
    await election.acquire()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(election.keep())
        await informers.list_until_complete()
        metrics.leader.set(1)
        leads.set()
        await reconciler.run()


async def _record_demands(recorder: DemandRecorder, informers: Informers, leads: asyncio.Event) -> None:
    await leads.wait()
    await informers.demands_listed.wait()
    await recorder.run()


async def _relist(reconciler: Reconciler, informers: Informers, cache: Cache, seconds: float) -> None:
    """Compares the caches with complete lists, for deletions that kopf does not report after a list of its own.

    The next pass decides from scratch.
    """
    while True:
        await asyncio.sleep(seconds)
        await _list_again(reconciler, informers, cache)


async def _list_again(reconciler: Reconciler, informers: Informers, cache: Cache) -> None:
    """Lists pods, GPUTelemetry and GPUWorkloads: kopf reports no earlier deletions. Retries without a response."""
    await informers.list_until_complete()
    if not reconciler.runs:
        cache.tracker.take()  # a standby notes changes and never decides on them
    cache.tracker.note_everything()
    cache.dirty.set()
    freeze_garbage_collector()
