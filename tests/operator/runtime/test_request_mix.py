"""The mix is learned from workloads and used by strategy Pack."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Telemetry, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.packing import PRIOR, Mix, PodType
from gpufleet_operator.runtime.executor import Executor
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.reconciler import Reconciler
from gpufleet_operator.runtime.request_mix import RequestMix
from gpufleet_testing.operator import make

PAIR = {"count": 2}
CPU = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2"}}}]}}


def updated(request_mix: RequestMix, workloads: Collection[Workload], telemetry: Collection[Telemetry] = ()) -> Mix:
    by_uid = {each.uid: each for each in workloads}
    return request_mix.update(by_uid, {each.uid: each for each in telemetry}, make.checks(*workloads))


def parts(mix: Mix) -> dict[PodType, float]:
    return dict(zip(mix.types, mix.parts, strict=True))


def test_a_workload_counts_once_with_all_of_its_replicas() -> None:
    request_mix, workload = RequestMix(), make.workload(replicas=96, template=CPU, devices=PAIR)

    first = updated(request_mix, [workload])

    assert parts(first)[PodType(2_000, 0, 2)] == pytest.approx(0.96, abs=0.01)
    assert updated(request_mix, [workload]) is first
    assert updated(request_mix, [make.workload(replicas=96, template=CPU, devices=PAIR)]) is first, "the same uid"


def test_a_deleted_workload_still_counts() -> None:
    request_mix = RequestMix()
    updated(request_mix, [make.workload(replicas=96, devices=PAIR)])

    after = updated(request_mix, [make.workload("other", replicas=128)])

    assert parts(after)[PodType(0, 0, 2)] > 0.3


def test_a_restart_learns_the_same_from_what_exists() -> None:
    """In any order of the lists."""
    workloads = [
        make.workload(
            f"w{at}", replicas=1 + at % 7, created=make.NOW - timedelta(minutes=at), devices={"count": 1 + at % 3}
        )
        for at in range(40)
    ]

    before, after = updated(RequestMix(), workloads), updated(RequestMix(), workloads[::-1])

    assert before == after
    assert before != PRIOR


def test_a_restart_learns_nearly_what_was_learned_one_by_one() -> None:
    workloads = [make.workload(f"w{at:02}", replicas=8, devices={"count": 1 + at % 2}) for at in range(40)]
    bit_by_bit = RequestMix()
    for at in range(1, len(workloads) + 1):
        learned = updated(bit_by_bit, workloads[:at])

    at_once = updated(RequestMix(), workloads)

    assert set(learned.types) == set(at_once.types)
    assert list(learned.parts) == pytest.approx(at_once.parts, abs=0.05)


def test_shares_are_measured_on_the_median_device() -> None:
    """Without a known device they wait: an agent may report later than the operator's first pass."""
    request_mix = RequestMix()
    workload = make.workload(replicas=96, devices={"count": 1, "mode": "Shared", "memoryMiB": 20_390})

    assert updated(request_mix, [workload]) is PRIOR
    assert parts(updated(request_mix, [workload], [make.telemetry()]))[PodType(0, 0, 1, 251)] > 0.7


def test_an_invalid_template_does_not_count() -> None:
    bad = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "two"}}}]}}

    assert updated(RequestMix(), [make.workload(replicas=96, template=bad)]) is PRIOR


SINGLES = Mix.of({PodType(0, 0, 1): 1})


@pytest.mark.parametrize(("pairs", "node"), [(False, "node-1"), (True, "node-2")])
def test_pack_keeps_free_what_workloads_usually_request(pairs: bool, node: str) -> None:
    """One device is requested; the two idle ones of node-1 stay together where pairs are common."""
    mix = updated(RequestMix(), [make.workload("usual", replicas=500, devices=PAIR)]) if pairs else SINGLES
    asked = make.workload(placement={"strategy": "Pack"})
    fleet = make.telemetry("node-1", devices=2), make.telemetry("node-2", devices=1)

    actions = decide(make.snapshot(asked, make.pod(), *fleet, mix=mix))

    assert [r.node for r in actions.releases] == [node]


async def test_each_pass_gets_the_mix_and_a_restart_learns_it_again() -> None:
    mixes: list[Mix] = []
    workloads = make.workload("one", replicas=64), make.workload("two", replicas=64, devices=PAIR)

    def process() -> Reconciler:
        cache, clock, api = Cache(), ServerClock(lambda: make.NOW), object()
        for workload in workloads:
            cache.workloads.put(workload)
        executor = Executor(cast("Any", api), cache, clock, ObjectEventRecorder(cast("Any", api), "test"))
        metrics = Metrics(CollectorRegistry())
        return Reconciler(
            cache,
            executor,
            Limits(),
            clock,
            metrics,
            name_seed=lambda: "salt",
            resync_interval_seconds=10,
            decide=decided,
        )

    def decided(snapshot: Snapshot, *_: object) -> tuple[Actions, None]:
        mixes.append(snapshot.mix)
        return Actions(), None

    for reconciler, passes in ((process(), 2), (process(), 1)):
        for _ in range(passes):
            await reconciler.one_pass()

    assert mixes[0] == updated(RequestMix(), workloads) != PRIOR
    assert mixes[1] is mixes[0]
    assert mixes[2] == mixes[0]
