"""Shows cluster-autoscaler which nodes are needed, outside of the passes, because that depends on what they wrote."""

import asyncio
from collections.abc import Callable
from functools import partial
from operator import itemgetter

import structlog

from gpufleet_common import timestamps
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode_placeholder import placeholder
from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.decide.scale_up.held_nodes import node_marks
from gpufleet_operator.decide.scale_up.placeholders import PlaceholderContext, placeholder_writes
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, Sleep
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError, UnavailableError
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.objects import Node
from gpufleet_operator.model.scale_up.objects import SCALE_DOWN_DISABLED, CreatePlaceholder, Placeholder
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.pacing.paused_writes import PausedWrites
from gpufleet_operator.runtime.pacing.scoped_writes import ScopedWrites, Write

_INTERVAL_SECONDS = 1.0
"""Most pods are bound within this time, so most placements need no annotation."""
_RETRY_SECONDS = 30.0
"""Pause after a rejected write: a quota or a policy may reject it for a long time."""

log = structlog.get_logger(__name__)


class Autoscaler:
    """Writes placeholder pods, and annotations of nodes.

    Args:
        api: The apiserver.
        cache: State of the cluster.
        clock: Clock of the apiserver.
        limits: Names of resources, and the tolerations of pods.
        may_write: Whether this process leads, asked before each write.
        sleep: Waits between two rounds.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        clock: ServerClock,
        limits: Limits,
        *,
        may_write: Callable[[], bool],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api, self._cache, self._clock, self._limits = api, cache, clock, limits
        self._may_write, self._sleep = may_write, sleep
        self.placeholders: TombstoneStore[Placeholder] = TombstoneStore(placeholder, lambda: None)
        self._informer: Informer[Placeholder] = Informer(api, paths.PODS, paths.PLACEHOLDERS, self.placeholders)
        self._refused: dict[str, str] = {}
        """Node whose annotation another client has set to another value -> version of the Node."""
        self._paused: PausedWrites[tuple[str, str]] = PausedWrites()
        """Failed writes, with the name of the object."""
        self._writes = ScopedWrites()

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            ApiError: The apiserver rejects a list or a watch (no permission).
        """
        listed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._informer.run(listed.set))
                await listed.wait()
                while True:
                    if self._may_write():
                        await self.write()
                    await self._sleep(_INTERVAL_SECONDS)
        finally:
            await self._writes.close()

    async def write(self) -> None:
        """Writes what is due. A write that fails is decided again after a pause, and follows the others then.

        It does not wait for slow writes: an admission webhook may hang for one namespace.
        """
        cache = self._cache
        self._paused.start_round()
        reserved = cache.tracker.index.nodes_reserved_for
        context = PlaceholderContext(
            workloads=cache.workloads.items,
            pods=cache.pods.items,
            placeholders=tuple(self.placeholders.items.values()),
            reserved=reserved,
            with_quota=cache.kueue_workloads.with_quota.keys(),
            resources=self._limits.resources,
            policy=self._limits.pod_policy,
            now=self._clock.now(),
        )
        due = placeholder_writes(context)
        writes: list[tuple[int, str, Write]] = []

        def add(scope: str, done: str, name: str, write: Write) -> None:
            if (done, name) not in self._paused:
                writes.append((self._paused.failures((done, name)), scope, partial(self._try, done, name, write)))

        for one in due.deletes:
            add(one.namespace, "placeholder deleted", f"{one.namespace}/{one.name}", partial(self._delete, one))
        for create in due.creates:
            name = f"{create.namespace}/{create.name}"
            add(create.namespace, "placeholder created", name, partial(self._create, create))
        for one, message in due.reports:
            name = f"{one.namespace}/{one.name}"
            add(one.namespace, "placeholder reported", name, partial(self._report, one, message))
        # A node may be deleted while the others are written.
        nodes = dict(cache.nodes.by_name)
        self._refused = {n: v for n, v in self._refused.items() if n in nodes and nodes[n].resource_version == v}
        marks = node_marks(nodes.values(), cache.pods.items, reserved, self._refused)
        hold = {SCALE_DOWN_DISABLED: "true"}
        for name in marks.to_set:
            add(f"node/{name}", "scale-down disabled", name, partial(self._mark, nodes[name], hold))
        for name in marks.to_remove:
            add(f"node/{name}", "scale-down enabled", name, partial(self._mark, nodes[name], {}))
        writes.sort(key=itemgetter(0))
        await self._writes.run((scope, write) for _, scope, write in writes)

    async def _try(self, done: str, name: str, write: Write) -> None:
        if not self._may_write():
            return
        try:
            await write()
        except ApiError as error:
            if isinstance(error, UnavailableError):
                self._paused.back_off((done, name))
            elif not isinstance(error, ConflictError):
                self._paused.pause((done, name), _RETRY_SECONDS)
            log.info("write for cluster-autoscaler failed", write=done, name=name, error=str(error))
        else:
            self._paused.succeeded((done, name))
            log.info(done, name=name)

    async def _create(self, create: CreatePlaceholder) -> None:
        try:
            body = await self._api.create(paths.pods(create.namespace), create.body)
        except AlreadyExistsError:
            return  # the watch reports it
        self.placeholders.apply(body)
        created = self.placeholders.decode(body)
        if created is not None:
            await self._report(created, create.message)

    async def _report(self, one: Placeholder, message: str) -> None:
        """Sets the condition that kube-scheduler would set."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": timestamps.seconds(self._clock.now()),
        }
        patch = {"metadata": {"uid": one.uid}, "status": {"conditions": [condition]}}
        self.placeholders.apply(await self._api.merge_patch(f"{paths.pod(one.namespace, one.name)}/status", patch))

    async def _delete(self, one: Placeholder) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": one.uid}}
        try:
            await self._api.delete(paths.pod(one.namespace, one.name), options)
        except NotFoundError:
            log.debug("placeholder already deleted", name=one.name)
        self.placeholders.remove(one.uid, "")

    async def _mark(self, node: Node, annotations: dict[str, str]) -> None:
        """Applies the annotations of the operator, without force: another client's annotation stays as it is."""
        body: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name, "uid": node.uid, "annotations": annotations},
        }
        try:
            self._cache.nodes.apply(await self._api.apply(paths.node(node.name), body, force=False))
        except ConflictError:
            self._refused[node.name] = node.resource_version
            raise
