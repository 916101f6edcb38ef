"""All reservations are lost at once: the CRDs are installed again, or etcd is restored."""

import asyncio
import sys
import threading
import urllib.request
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.ledger import conflicts
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.runtime.http_server import ReconcilerHealth, serve
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator import invariants
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.decisions import AppliedDecisions
from gpufleet_testing.operator.process import OperatorProcess, moment
from gpufleet_testing.operator.synthetic import SyntheticFleet

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("pods", [1, 6])
async def test_recovery_reads_the_fleet_once_for_all_pods(monkeypatch: pytest.MonkeyPatch, pods: int) -> None:
    """Reading it for each pod took 15 s for 2,000 pods on 1,000 nodes."""
    cluster = FakeCluster(2, 3)
    cluster.submit("train", replicas=pods)
    operator = OperatorProcess(cluster)
    for _ in range(4):
        await moment(cluster, operator)
    before = sorted((node, a["podUID"], a["devices"]) for node, a in cluster.ledger())
    assert len(before) == pods
    for node in cluster.kubelets:
        cluster.register_again(node)
    assert not list(cluster.ledger())
    read: list[conflicts.Occupancy] = []
    original = conflicts.Occupancy.__init__

    def counted(self: conflicts.Occupancy, *args: Any, **kwargs: Any) -> None:
        read.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(conflicts.Occupancy, "__init__", counted)
    operator.hear(1000)
    await operator.act()

    assert sorted((node, a["podUID"], a["devices"]) for node, a in cluster.ledger()) == before
    assert len(read) <= 3, "once for each ledger of the pass, however many pods there are"
    invariants.check_always(cluster)


class LostFleet:
    """A settled fleet of nodes with two running workloads each, whose reservations were lost."""

    def __init__(self, nodes: int) -> None:
        fleet, self.cache = SyntheticFleet(nodes, 2 * nodes, 0, NOW), Cache()
        fleet.fill(self.cache)
        applied = AppliedDecisions(fleet, self.cache)
        self.reconciler = Reconciler(
            self.cache,
            applied,
            Limits(),
            ServerClock(lambda: NOW),
            Metrics(CollectorRegistry()),
            name_seed=lambda: "seed",
            resync_interval_seconds=3600,
        )
        while not (actions := self.reconciler.decide_once()).empty:
            asyncio.run(applied.run(actions))
        applied.lose_reservations(NOW)

    def recover(self) -> int:
        """Runs the pass; returns the number of restored reservations."""
        return sum(len(one.assignments) for one in self.reconciler.decide_once().reserves)


def calls_of_recovery(nodes: int) -> int:
    """Returns the number of function calls of the pass: it is the same in each run, unlike a time."""
    fleet, calls = LostFleet(nodes), 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        restored = fleet.recover()
    finally:
        sys.setprofile(None)
    assert restored == 2 * nodes
    return calls


def test_recovery_grows_with_the_fleet_and_no_faster() -> None:
    assert calls_of_recovery(60) < 4.5 * calls_of_recovery(15)


def test_probes_are_answered_during_a_recovery() -> None:
    """They have a thread of their own, so the pass may take as long as it takes."""
    fleet = LostFleet(100)
    ended, answers = threading.Event(), []

    def ask(port: int) -> None:
        while not ended.is_set():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as response:
                if not ended.is_set():
                    answers.append(response.status)

    async def recover() -> int:
        now = asyncio.get_running_loop().time()
        async with serve("127.0.0.1", 0, ReconcilerHealth(lambda: now, 120), CollectorRegistry()) as port:
            kubelet = threading.Thread(target=ask, args=(port,))
            kubelet.start()
            restored = fleet.recover()
            ended.set()
            await asyncio.to_thread(kubelet.join)
            return restored

    assert asyncio.run(recover()) == 200
    assert answers
    assert set(answers) == {200}


async def test_score_is_kept_while_a_node_is_away() -> None:
    """A status is written while nothing is reserved for the pod."""
    cluster = FakeCluster(1, 2)
    operator = OperatorProcess(cluster, checked=True)
    operator.read_leases()
    cluster.submit("train")
    for _ in range(4):
        await moment(cluster, operator)
    (before,) = cluster.objects["workloads", "ml/train"]["status"]["placements"]
    assert before["score"]["total"] > 0

    table = cluster.kubelets["node-1"]
    cluster.remove("telemetry", "node-1")
    cluster.remove("nodes", "node-1")
    for _ in range(2):
        operator.hear(100)
        await operator.act()
    (away,) = cluster.objects["workloads", "ml/train"]["status"]["placements"]
    assert "not found" in away["message"]
    cluster.add_node("node-1", 2)
    cluster.kubelets["node-1"] = table
    cluster.agent("node-1")
    operator.read_leases()
    for _ in range(4):
        await moment(cluster, operator)

    (after,) = cluster.objects["workloads", "ml/train"]["status"]["placements"]
    assert after == before
