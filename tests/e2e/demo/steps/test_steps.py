"""The acts against a cluster of paper: what they note when something doesn't fit, and the exit code at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any, cast

import pytest

from gpufleet_e2e.demo import scenario, tables
from gpufleet_e2e.demo.context import DemoContext
from gpufleet_e2e.demo.steps import placement
from gpufleet_e2e.demo.terminal import Terminal, make_console
from gpufleet_e2e.proof import (
    EvidenceCollector,
    FleetEvidence,
    ShardEvidence,
    Source,
    Statement,
    WaitTimeoutError,
    WorkloadEvidence,
)
from gpufleet_e2e.proof.compare import CHECKED_SOURCES
from gpufleet_testbed import Cluster


@dataclass
class FakeCluster:
    """Takes what is applied."""

    applied: list[str] = field(default_factory=list)

    def kubectl(self, *words: str, stdin: str | None = None) -> None:
        assert words[0] == "apply"
        assert stdin is not None
        self.applied.append(stdin)


@dataclass
class FakeCollector:
    """Returns prepared evidence."""

    workload: WorkloadEvidence
    seen: FleetEvidence
    ready: bool = True
    others: dict[str, WorkloadEvidence] = field(default_factory=dict)
    """Of workloads that have their own."""
    sources: tuple[Source, ...] = CHECKED_SOURCES

    def complete(self, namespace: str, name: str, *, timeout_seconds: float) -> WorkloadEvidence:
        return self.others.get(name, self.workload)

    def fleet(self) -> FleetEvidence:
        return self.seen

    def wait_for_workload(
        self, namespace: str, name: str, done: Callable[[dict[str, Any]], bool], *, timeout_seconds: float
    ) -> dict[str, Any]:
        condition = {"type": "Ready", "status": str(self.ready), "reason": "X"}
        found = {"metadata": {}, "status": {"placements": [{"state": "Bound"}], "conditions": [condition]}}
        if not done(found):
            raise WaitTimeoutError("after 1 s: Ready=False X: no device is free")
        return found


Make = Callable[..., DemoContext]


@pytest.fixture
def make(workload: WorkloadEvidence, fleet: FleetEvidence) -> Make:
    def made(evidence: WorkloadEvidence = workload, *, ready: bool = True) -> DemoContext:
        collector = FakeCollector(evidence, fleet, ready)
        terminal = Terminal(make_console(StringIO(), {}), 9)
        return DemoContext(
            cast("Cluster", FakeCluster()), cast("EvidenceCollector", collector), terminal, timeout_seconds=1
        )

    return made


Sharers = tuple[list[WorkloadEvidence], FleetEvidence]


def shared_stage(sharers: Sharers) -> DemoContext:
    """One on which the example's workloads have what `sharers` says."""
    found, fleet = sharers
    collector = FakeCollector(found[0], fleet, others={one.name: one for one in found})
    terminal = Terminal(make_console(StringIO(), {"COLUMNS": "80"}), 9)
    return DemoContext(
        cast("Cluster", FakeCluster()), cast("EvidenceCollector", collector), terminal, timeout_seconds=1
    )


def shown(context: DemoContext) -> str:
    return cast("StringIO", context.terminal.console.file).getvalue()


def test_workload_with_agreeing_sources_is_verified(make: Make) -> None:
    context = make()
    placement.place(context, "single")
    assert context.problems == []
    assert context.verified == ["single"]
    assert "kind: GPUWorkload" in cast("FakeCluster", context.cluster).applied[0]
    assert "single: 1 Bound" in shown(context)
    assert "ok  2 devices in 2 containers: all six sources agree" in shown(context)
    assert scenario.summarize(context.terminal, context.problems) == 0


def test_source_that_the_cluster_lacks_is_neither_checked_nor_shown(make: Make, workload: WorkloadEvidence) -> None:
    """Kubelets before Kubernetes 1.36 write no allocatedResourcesStatus."""
    old = [
        replace(replica, says={source: said for source, said in replica.says.items() if source != Source.POD_STATUS})
        for replica in workload.replicas
    ]
    context = make(replace(workload, replicas=tuple(old)))
    collector = cast("FakeCollector", context.collector)
    collector.sources = tuple(source for source in CHECKED_SOURCES if source is not Source.POD_STATUS)
    placement.place(context, "single")
    assert context.problems == []
    assert "ok  2 devices in 2 containers: all five sources agree" in shown(context)
    assert [tables.COLUMNS[source] for source in context.shown_sources] == [
        "picked",
        "reserved",
        "annot.",
        "env",
        "kubelet",
    ]


def test_claim_counts_as_a_source(make: Make, workload: WorkloadEvidence) -> None:
    claimed = [
        replace(replica, says={**replica.says, Source.CLAIM: replica.says[Source.STATUS]})
        for replica in workload.replicas
    ]
    context = make(replace(workload, replicas=tuple(claimed)))
    placement.place(context, "single")
    assert context.problems == []
    assert "ok  2 devices in 2 containers: all seven sources agree" in shown(context)


def test_differing_source_ends_in_exit_code_1(make: Make, workload: WorkloadEvidence) -> None:
    first = workload.replicas[0]
    says = {**first.says, Source.POD_RESOURCES: Statement(("GPU-22222222-aaaa",))}
    context = make(replace(workload, replicas=(replace(first, says=says), workload.replicas[1])))
    placement.place(context, "single")
    assert [problem.source for problem in context.problems] == [Source.POD_RESOURCES]
    assert "all six sources" not in shown(context)
    assert scenario.summarize(context.terminal, context.problems) == 1
    assert "demo/train[0]: PodResources: names GPU-22222222-aaaa" in shown(context).splitlines()[-1]


def test_workload_not_ready_in_time_is_a_problem_with_its_conditions(make: Make) -> None:
    context = make(ready=False)
    placement.place(context, "single")
    assert [str(problem) for problem in context.problems] == [
        "single: demo: not true: single becomes Ready (after 1 s: Ready=False X: no device is free)"
    ]


def test_a_container_that_prints_another_share_is_noted(make: Make, workload: WorkloadEvidence) -> None:
    first = workload.replicas[0]
    wrong = replace(first, shard=ShardEvidence((0, 50), (0, 50), (0, 49), "shard 0 to 49"))
    context = make(replace(workload, replicas=(wrong, workload.replicas[1])))
    placement.place_distribution(context, "distribution")
    assert [problem.source for problem in context.problems] == ["container log"]


def test_the_shares_that_tile_are_said_to(make: Make) -> None:
    context = make()
    placement.place_distribution(context, "distribution")
    assert "the shards tile 0..100 exactly" in shown(context)


def test_sharers_of_one_device_are_verified(sharers: Sharers) -> None:
    context = shared_stage(sharers)
    placement.place_sharers(context, "shared")
    assert context.problems == []
    assert context.verified == ["shared", "shared-inference"]
    assert len(cast("FakeCluster", context.cluster).applied) == 2
    assert "shared, shared-inference: Ready" in shown(context)
    assert "ok  1 device in 2 containers: all six sources agree" in shown(context)
    assert "ok  1 device in 1 container: all six sources agree" in shown(context)
    assert "ok  3 containers share one GPU" in shown(context)
    scenario.check_everything(context)
    assert "ok  1 device in 3 containers of 2 workloads: all sources agree" in shown(context)
    assert max(len(line) for line in shown(context).splitlines()) <= 80


def test_sharers_on_two_devices_are_a_problem(sharers: Sharers) -> None:
    (first, second), fleet = sharers
    away = {source: Statement(("GPU-22222222-aaaa",)) for source in Source}
    moved = replace(second, replicas=(replace(second.replicas[0], says=away),))
    context = shared_stage(([first, moved], fleet))
    placement.place_sharers(context, "shared")
    (problem,) = context.problems
    assert "28,000 MiB promised of GPU 0 of node-1 (81,559 MiB) and GPU 1" in str(problem)


def test_final_check_compares_all_verified_workloads(make: Make) -> None:
    context = make()
    context.verified = ["train", "twin"]  # both get the same evidence, so each device is picked twice
    scenario.check_everything(context)
    assert {problem.subject for problem in context.problems} == {"GPU-11111111-aaaa", "GPU-33333333-aaaa"}
