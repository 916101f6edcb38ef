"""A workload that waits is placed in the pass after enough became known of its earlier runs."""

from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from gpufleet_api.names import SHARED_RESOURCE
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_testing.operator import make
from gpufleet_testing.operator.decisions import AppliedDecisions
from gpufleet_testing.operator.from_scratch import checked_decision
from gpufleet_testing.operator.synthetic import SyntheticFleet

SLOT = PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={SHARED_RESOURCE: 1})
KEY = TemplateKey("ml", "GPUWorkload", "train", "main", "busybox")


def demand(runs: int, version: int) -> dict[str, Any]:
    return {
        "metadata": {"name": KEY.name, "namespace": "ml", "uid": "uid-demand", "resourceVersion": str(version)},
        "spec": {"owner": {"kind": KEY.owner_kind, "name": KEY.owner}, "container": "main", "image": "busybox"},
        "status": {"observedAt": "2026-01-01T00:00:00Z", "countedRuns": runs, "p80MiB": 10_000},
    }


def test_waiting_workload_is_placed_once_enough_is_known() -> None:
    """The decision on what changed is compared with that on the whole cluster in each pass."""
    cache = Cache()
    neighbor = make.workload("neighbor", devices={"mode": "Shared", "memoryMiB": 30_000})
    holder = make.running_pod(neighbor, needs=SLOT, devices=())
    held = make.assignment(holder, "GPU-1-0", workload="neighbor", memory_mib=30_000, resource=SHARED_RESOURCE)
    waits = make.workload("train", devices={"mode": "Shared", "memoryMiB": 60_000}, placement={"demand": "Learned"})
    for workload in (neighbor, waits):
        cache.workloads.put(workload)
    for pod in (holder, make.pod(waits, needs=SLOT)):
        cache.pods.put(pod)
    cache.telemetry.put(replace(make.telemetry(devices=1, assignments=[held]), resource_version="5"))
    cache.nodes.put(make.node("node-1", devices=1))
    reconciler = Reconciler(
        cache,
        AppliedDecisions(SyntheticFleet(0, 0, 0, make.NOW), cache),
        Limits(),
        ServerClock(lambda: make.NOW),
        Metrics(CollectorRegistry()),
        name_seed=lambda: "seed",
        resync_interval_seconds=10,
        decide=checked_decision,
    )
    assert reconciler.decide_once().reserves == ()
    assert reconciler.decide_once().reserves == ()

    cache.demands.apply(demand(1, 6))
    assert reconciler.decide_once().reserves == ()
    cache.demands.apply(demand(2, 7))
    (reserve,) = reconciler.decide_once().reserves
    assert [(a.workload, a.demand_mib) for a in reserve.assignments if a.workload == "train"] == [("train", 40_400)]
