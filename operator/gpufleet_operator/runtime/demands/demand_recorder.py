"""Compares the stored GPUDemands with the running containers every few seconds, and writes the differences.

It is not part of a pass: placement never waits for it, and failed writes are retried. Only the leader writes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.demand.observe import ObservedRun, RunKey, observe_runs
from gpufleet_operator.demand.plan import DeleteDemand, WriteDemand, plan_writes
from gpufleet_operator.demand.runs import PodEnds
from gpufleet_operator.kube.api import Sleep
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.demand_writer import DemandWriter
from gpufleet_operator.kube.errors import ApiError, ConflictError, NotFoundError
from gpufleet_operator.model.demands.gpu_demand import Demand
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.objects import PodDeletion, PodPhase
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.pacing.paused_writes import PausedWrites

INTERVAL_SECONDS = 5.0
_RETRY_SECONDS = 60.0
"""After a write that failed."""
_BATCH = 200
"""Number of reports that are read before other tasks run."""

log = structlog.get_logger(__name__)


class DemandRecorder:
    """Writes GPUDemands.

    Args:
        cache: State of the cluster; updated from each response.
        writer: The apiserver.
        limits: How long a run must be observed to count.
        clock: Clock of the apiserver.
        may_write: Whether this process leads, asked before each write.
        sleep: Waits between two comparisons.
    """

    def __init__(
        self,
        cache: Cache,
        writer: DemandWriter,
        limits: Limits,
        clock: ServerClock,
        *,
        may_write: Callable[[], bool] = lambda: True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._cache, self._writer, self._limits, self._clock = cache, writer, limits, clock
        self._may_write, self._sleep = may_write, sleep
        self._observed: dict[RunKey, ObservedRun] = {}
        """Maxima of running pods. Small increases are not written."""
        self._versions: dict[str, tuple[str, str]] = {}
        """Node -> UID and version of the last report that was read."""
        self._failed: PausedWrites[TemplateKey] = PausedWrites()

    async def run(self) -> None:
        """Records until cancelled. The caches must be complete: a pod that is not listed looks like one that ended."""
        while True:
            await self.record()
            await self._sleep(INTERVAL_SECONDS)

    async def record(self) -> None:
        """Compares once, and writes the differences one after the other."""
        await self._observe()
        ends = self._pod_ends()
        self._failed.start_round()
        stored: dict[str, list[Demand]] = defaultdict(list)
        for demand in self._cache.demands.items.values():
            stored[demand.namespace].append(demand)
        observed: dict[str, dict[RunKey, ObservedRun]] = defaultdict(dict)
        for key, run in self._observed.items():
            observed[key[0].namespace][key] = run
        for namespace in sorted({*stored, *observed}):
            await asyncio.sleep(0)  # passes go on in between
            await self._record_namespace(stored[namespace], observed[namespace], ends)
        self._observed = {key: run for key, run in self._observed.items() if self._is_needed(key, ends)}

    def _is_needed(self, key: RunKey, ends: PodEnds) -> bool:
        """Returns whether a run goes on, or its maximum is to be stored when the next write of its template succeeds.

        A run that ended before it was listed is never stored.
        """
        template, uid = key
        if uid in ends.running:
            return True
        status = self._cache.demands.by_template.get(template) if template in self._failed else None
        return status is not None and any(run.pod_uid == uid for run in status.runs)

    async def _observe(self) -> None:
        """Adds the reports that are new since the last comparison."""
        cache, before = self._cache, self._versions
        self._versions = {name: (one.uid, one.resource_version) for name, one in cache.telemetry.by_name.items()}
        new = [one for name, one in cache.telemetry.by_name.items() if before.get(name) != self._versions[name]]
        for start in range(0, len(new), _BATCH):
            await asyncio.sleep(0)
            batch = new[start : start + _BATCH]
            for key, run in observe_runs(batch, cache.pods.items, cache.workloads.items.values()).items():
                self._observed[key] = self._observed[key].merged(run) if key in self._observed else run

    async def _record_namespace(
        self, stored: Iterable[Demand], observed: Mapping[RunKey, ObservedRun], ends: PodEnds
    ) -> None:
        minimum = self._limits.reclaim_after
        for write in plan_writes(stored, observed, ends, now=self._clock.now(), minimum=minimum):
            template = write.stored.key if isinstance(write, DeleteDemand) else write.key
            if template not in self._failed:
                await self._write(template, write)

    def _pod_ends(self) -> PodEnds:
        pods, deleted = self._cache.pods.items, self._cache.pods.deleted
        succeeded = {uid for uid, pod in pods.items() if pod.phase is PodPhase.SUCCEEDED}
        succeeded |= {uid for uid, how in deleted.items() if how is PodDeletion.SUCCEEDED}
        return PodEnds(frozenset(uid for uid, pod in pods.items() if not pod.terminal), frozenset(succeeded))

    async def _write(self, key: TemplateKey, write: WriteDemand | DeleteDemand) -> None:
        if not self._may_write():
            return
        try:
            if isinstance(write, DeleteDemand):
                await self._delete(write)
            else:
                await self._change(write)
        except ConflictError as error:
            log.info("write conflict", demand=f"{key.namespace}/{key.name}", error=str(error))
            self._failed.pause(key, 0)  # the watch reports the other version first
        except ApiError as error:
            log.warning("cannot write demand", demand=f"{key.namespace}/{key.name}", error=str(error))
            self._failed.pause(key, _RETRY_SECONDS)

    async def _change(self, write: WriteDemand) -> None:
        version = "" if write.stored is None else write.stored.resource_version
        if write.owners_change:
            body = await self._writer.apply(write, version)
            self._cache.demands.apply(body)
            version = str(body["metadata"]["resourceVersion"])
        self._cache.demands.apply(await self._writer.apply_status(write, version))

    async def _delete(self, write: DeleteDemand) -> None:
        stored = write.stored
        try:
            await self._writer.delete(stored)
        except NotFoundError:
            log.debug("demand already deleted", demand=f"{stored.namespace}/{stored.name}")
        self._cache.demands.remove(stored.uid, "")
