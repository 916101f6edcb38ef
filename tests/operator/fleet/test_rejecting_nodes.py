"""Which rejections set a node aside, and for how long."""

from datetime import timedelta

import pytest

from gpufleet_operator.fleet import rejecting_nodes
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

    end = rejecting_nodes.until(found)

    assert (None if end is None else (end - found[-1].at).total_seconds()) == seconds


def test_old_rejections_do_not_count() -> None:
    found = {"node-1": tuple(rejections("a", "b", apart=400))}
    now = make.NOW + timedelta(seconds=700)

    kept = rejecting_nodes.kept(found, now)

    assert [r.workload_uid for r in kept["node-1"]] == ["b"]
    later = rejecting_nodes.with_rejection(kept, "node-1", RejectionOnNode("c", now, "Allocate failed"))
    assert rejecting_nodes.until(later["node-1"]) is None


def test_node_is_active_until_its_end_and_ended_after_it() -> None:
    found = {"node-1": tuple(rejections("a", "b", "c", apart=0))}
    within, after = make.NOW + timedelta(seconds=14), make.NOW + timedelta(seconds=15)

    assert rejecting_nodes.active(found, within) == {"node-1": after}
    assert rejecting_nodes.ended(found, within) == frozenset()
    assert rejecting_nodes.active(found, after) == {}
    assert rejecting_nodes.ended(found, after) == {"node-1"}
