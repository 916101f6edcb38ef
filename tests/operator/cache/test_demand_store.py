"""GPUDemands by template; workloads that are placed by them are decided on again."""

from typing import Any

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_testing.operator import make

KEY = TemplateKey("ml", "GPUWorkload", "train", "main", "busybox")
SHARED = {"mode": "Shared", "memoryMiB": 1000}


def demand(version: int, runs: int = 2, p80: int = 500, *, name: str = KEY.name, observed: int = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"owner": {"kind": KEY.owner_kind, "name": KEY.owner}, "container": "main", "image": "busybox"},
        "status": {"observedAt": f"2026-01-01T00:00:{observed:02}Z", "countedRuns": runs, "p80MiB": p80},
    }


def cache() -> Cache:
    found = Cache()
    for name, placement in (("learns", {"demand": "Learned"}), ("keeps", {})):
        found.workloads.put(make.workload(name, devices=SHARED, placement=placement))
    found.tracker.take()
    found.dirty.clear()
    return found


def test_change_of_a_demand_wakes_workloads_that_learn() -> None:
    found = cache()
    found.demands.apply(demand(1))
    assert (found.tracker.take().workloads, found.dirty.is_set()) == ({"uid-learns"}, True)
    assert found.demands.by_template.keys() == {KEY}

    found.dirty.clear()
    found.demands.apply(demand(2, observed=7))
    assert (found.tracker.take().workloads, found.dirty.is_set()) == (set(), False), "placing does not depend on it"
    found.demands.apply(demand(3, p80=600))
    assert found.tracker.take().workloads == {"uid-learns"}


def test_deletion_is_forgotten() -> None:
    found = cache()
    found.demands.apply(demand(1))
    found.tracker.take()
    found.demands.delete(demand(2))
    assert (found.demands.by_template, found.tracker.take().workloads) == ({}, {"uid-learns"})


def test_late_deletion_does_not_forget_an_object_that_was_created_again() -> None:
    found = cache()
    found.demands.apply(demand(1))
    again = demand(5, p80=700)
    again["metadata"]["uid"] = "uid-again"
    found.demands.apply(again)
    found.demands.delete(demand(4))
    assert [status and status.p80_mib for status in found.demands.by_template.values()] == [700]
    again["metadata"]["resourceVersion"] = "6"
    found.demands.delete(again)
    assert found.demands.by_template == {}


def test_object_with_another_name_is_not_that_of_the_template() -> None:
    found = cache()
    found.demands.apply(demand(1))
    found.demands.apply(demand(2, 30, 5, name="by-hand"))
    assert [status and status.p80_mib for status in found.demands.by_template.values()] == [500]
    found.demands.delete(demand(3, name="by-hand"))
    assert found.demands.by_template.keys() == {KEY}
