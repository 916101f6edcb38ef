"""Which rejections set a node aside, and for how long."""

from datetime import timedelta

import pytest

from gpufleet_operator.fleet import set_aside
from gpufleet_operator.model.state_types import RejectionOnNode
from gpufleet_testing.operator import make


def rejections(*workloads: str, apart: float = 1) -> list[RejectionOnNode]:
    return [
        RejectionOnNode(uid, make.NOW + timedelta(seconds=apart * number), "Allocate failed")
        for number, uid in enumerate(workloads)
    ]


@pytest.mark.parametrize(
    ("workloads", "seconds"),
    [
        ("", None),
        ("ab", None),
        ("aaaaaa", None),
        ("abc", 15),
        ("aabc", 30),
        ("abcd", 30),
        ("abcabc", 120),
        ("abcabcabcabcabc", 600),
    ],
)
def test_pause_of_a_node_grows_with_rejections(workloads: str, seconds: float | None) -> None:
    found = rejections(*workloads)

    end = set_aside.until(found)

    assert (None if end is None else (end - found[-1].at).total_seconds()) == seconds


def test_old_rejections_do_not_count() -> None:
    found = {"node-1": tuple(rejections("a", "b", apart=400))}
    now = make.NOW + timedelta(seconds=700)

    kept = set_aside.kept(found, now)

    assert [r.workload_uid for r in kept["node-1"]] == ["b"]
    later = set_aside.with_rejection(kept, "node-1", RejectionOnNode("c", now, "Allocate failed"))
    assert set_aside.until(later["node-1"]) is None


def test_node_is_active_until_its_end_and_ended_after_it() -> None:
    found = {"node-1": tuple(rejections("a", "b", "c", apart=0))}
    within, after = make.NOW + timedelta(seconds=14), make.NOW + timedelta(seconds=15)

    assert set_aside.active(found, within) == {"node-1": after}
    assert set_aside.ended(found, within) == frozenset()
    assert set_aside.active(found, after) == {}
    assert set_aside.ended(found, after) == {"node-1"}
