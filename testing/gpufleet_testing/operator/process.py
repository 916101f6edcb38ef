"""The operator's own loop, executor and caches on a cluster in memory: one process from start to crash."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry

from gpufleet_operator.cache import decode, decode_claim, decode_pod
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.quotas.quota_store import resource_quota
from gpufleet_operator.decide.incremental.decide_changes import decide_changes
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.node_leases import NodeLease, NodeLeases
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.pacing.token_bucket import TokenBucket
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator.apiserver import Crash, Json
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.from_scratch import checked_decision

LIMITS = Limits(restart_base=timedelta(seconds=1), restart_cap=timedelta(seconds=4))
"""The defaults, but failed replicas are started again within seconds."""

LEASE = timedelta(seconds=40)
"""Duration of a kubelet's lease."""
CHECKED = False
HOLD_STATUSES = timedelta(0)
"""Tests of single passes see each status."""
PATIENCE = 600.0
"""The writes of a pass end within it, however busy the machine is."""

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "pods": decode_pod.pod,
    "telemetry": decode.telemetry,
    "workloads": decode.workload,
    "nodes": decode.node,
    "services": decode.service,
    "claims": decode_claim.resource_claim,
    "quotas": resource_quota,
}

_DECODED: dict[tuple[str, str, str], tuple[Json, Any]] = {}
_MAX_DECODED = 10_000


class OperatorProcess:
    """One process of the operator; a new one starts from complete lists.

    Args:
        cluster: What it runs on.
        limits: Settings of decisions.
        checked: Compares each decision with the one on the whole cluster, which takes twice the time.
        patience: Seconds for which a pass waits for its writes.
        report_patience: The same for statuses and reports, after the others.
        status_budget: Limits the rate of statuses; without it they are not limited.
        hold_statuses: How long statuses are held back that a later one may replace.
        local_time: Clock of its machine; by default that of the cluster.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        limits: Limits | None = None,
        *,
        checked: bool = CHECKED,
        patience: float = PATIENCE,
        report_patience: float = PATIENCE,
        status_budget: TokenBucket | None = None,
        hold_statuses: timedelta = HOLD_STATUSES,
        local_time: Callable[[], datetime] | None = None,
    ) -> None:
        self.cluster = cluster
        self._decide_changes = checked_decision if checked else decide_changes
        self._decided: tuple[Snapshot, Actions, Kept] | None = None
        self.cache = Cache()
        self.registry = CollectorRegistry()
        clock = ServerClock(local_time or (lambda: cluster.now))
        recorder = ObjectEventRecorder(cluster, "test")
        self.executor = Executor(
            cluster,
            self.cache,
            clock,
            recorder,
            patience_seconds=patience,
            report_patience_seconds=report_patience,
            hold_statuses=hold_statuses,
        )
        self.reconciler = Reconciler(
            self.cache,
            self.executor,
            replace(limits or LIMITS, holds_statuses=bool(hold_statuses)),
            clock,
            Metrics(self.registry),
            name_seed=lambda: f"{cluster.now}/{len(cluster.log)}",
            resync_interval_seconds=10,
            decide=self._decide,
            status_budget=status_budget,
        )
        for kind, store in self.stores().items():
            store.decode = partial(self._decode, kind)  # the watch repeats the responses to its writes
        self.position = 0
        self.relist()

    def relist(self) -> None:
        """Lists everything, as at start and at each relist."""
        self.position = len(self.cluster.log)
        for kind, store in self.stores().items():
            items = [self._decode(kind, body) for body in self.cluster.of(kind)]
            store.replace(items, str(self.cluster.version))

    def stores(self) -> dict[str, Any]:
        cache = self.cache
        return {
            "pods": cache.pods,
            "telemetry": cache.telemetry,
            "workloads": cache.workloads,
            "nodes": cache.nodes,
            "services": cache.services,
            "claims": cache.claims,
            "quotas": cache.quotas,
        }

    def hear(self, number: int, *, lose: bool = False) -> None:
        """Delivers the next events of the watches, or loses them."""
        for event, kind, body in self.cluster.log[self.position : self.position + number]:
            if not lose and kind in _DECODERS:
                self.see(event, kind, body)
        self.position = min(len(self.cluster.log), self.position + number)

    def see(self, event: str, kind: str, body: Json) -> None:
        view, store = self._decode(kind, body), self.stores()[kind]
        if event != "DELETED":
            store.put(view)
        elif kind == "pods":
            store.record_deletion(view)
        else:
            store.remove(view.uid, view.resource_version)

    def read_leases(self, ages: Mapping[str, timedelta] = MappingProxyType({})) -> None:
        """Reads the leases of all nodes, as the poller does; some were renewed so long ago, the others now."""
        now = self.cluster.now
        renewed = {name: now - ages.get(name, timedelta(0)) for name in self.cluster.kubelets}
        leases = dict.fromkeys(renewed, NodeLease("time", LEASE))
        self.cache.node_leases = NodeLeases(now, leases=leases, renewed_at=renewed)
        self.cache.tracker.note_nodes(set(renewed))

    def _decode(self, kind: str, body: Json) -> Any:
        """Decodes each version of an object once: decoding is pure, and lists and watches repeat it."""
        meta = body["metadata"]
        key = (kind, meta["uid"], meta["resourceVersion"])
        if key not in self.cluster.decoded:
            self.cluster.decoded[key] = _decoded(key, body)
        return self.cluster.decoded[key]

    async def act(self) -> datetime | None:
        """One pass: decides and executes. Returns when the next one is due."""
        return await self.reconciler.one_pass()

    def _decide(
        self, snapshot: Snapshot, kept: Kept | None, changes: Changes, index: ClusterIndex
    ) -> tuple[Actions, Kept]:
        actions, kept = self._decide_changes(snapshot, kept, changes, index)
        self._decided = snapshot, actions, kept
        return actions, kept

    def next_change(self) -> datetime | None:
        """Returns when the decision of the last pass changes although the cluster does not, now if it wrote anything.

        None: never. The next pass is due nevertheless, for agents that report nothing any more and for new messages.
        """
        if self._decided is None:
            return self.cluster.now
        snapshot, actions, kept = self._decided
        is_done = actions.empty and not actions.state.status_queue and snapshot.outage is None
        return kept.moments.next() if is_done and self.executor.due() is None else self.cluster.now


def _decoded(key: tuple[str, str, str], body: Json) -> Any:
    """Decodes an object, unless the last cluster with such a version had an equal one.

    The runs of a test with a fault at each write in turn are alike up to this write.
    """
    known = _DECODED.get(key)
    if known is not None and known[0] == body:
        return known[1]
    if len(_DECODED) >= _MAX_DECODED:
        _DECODED.clear()
    view = _DECODERS[key[0]](body)
    _DECODED[key] = body, view
    return view


class RestartingOperator:
    """An operator whose process is restarted when it crashes."""

    def __init__(self, cluster: FakeCluster, hold_statuses: timedelta = HOLD_STATUSES) -> None:
        self._cluster, self._hold_statuses = cluster, hold_statuses
        self._process = self._start()

    def _start(self) -> OperatorProcess:
        return OperatorProcess(self._cluster, hold_statuses=self._hold_statuses)

    def hear(self, number: int) -> None:
        self._process.hear(number)

    def relist(self) -> None:
        self._process.relist()

    def next_change(self) -> datetime | None:
        return self._process.next_change()

    async def act(self) -> datetime | None:
        try:
            return await self._process.act()
        except Crash:
            self._process = self._start()
            return self._cluster.now


async def moment(cluster: FakeCluster, operator: OperatorProcess | RestartingOperator) -> datetime | None:
    """Runs one step of every component, and two of the operator if the first writes something.

    Returns when the operator's next pass is due.
    """
    due = None
    for _ in range(2):
        operator.hear(1000)
        sent, due = cluster.sent, await operator.act()
        if cluster.sent == sent and (due is None or due > cluster.now):
            break  # there is nothing new to hear, and another pass at this moment would decide the same
    cluster.scheduler()
    for node in cluster.kubelets:
        cluster.kubelet(node)
        cluster.agent(node)
    cluster.collector()
    cluster.quota_controller()
    cluster.advance(1)
    return due
