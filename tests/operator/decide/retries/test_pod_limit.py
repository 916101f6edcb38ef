"""The number of pods of a replica that is rejected, for any reasons, at the earliest times that are permitted."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.decide.retries.observed_node import NodeObserver
from gpufleet_operator.decide.retries.pause_rules import PLUGIN_ERROR, next_pause
from gpufleet_operator.model.replica import Removal, RemovalReason
from gpufleet_operator.model.state_types import RetryPause
from gpufleet_testing.operator import make

WORKLOAD = make.workload()
CLUSTER = make.snapshot(WORKLOAD, make.telemetry("node-1"))
KEY = (WORKLOAD.uid, 0)

CAUSES = (
    Removal(make.pod(), 0, RemovalReason.UNSCHEDULABLE, "0/1 nodes are available: 1 Insufficient cpu.", "node-1"),
    Removal(make.pod(), 0, RemovalReason.UNSCHEDULABLE, "1 node(s) had volume node affinity conflict", "node-1"),
    Removal(make.pod(reason=PLUGIN_ERROR), 0, RemovalReason.REJECTED, "Allocate failed", "node-1"),
    Removal(make.pod(), 0, RemovalReason.REJECTED, "SysctlForbidden", "node-1"),
    Removal(make.pod(), 0, RemovalReason.MISMATCH, "other devices", "node-1"),
    Removal(make.pod(), 0, RemovalReason.NOT_SCHEDULED, "no scheduler", "node-1"),
)
REJECTIONS = st.lists(st.tuples(st.sampled_from(CAUSES), st.integers(0, 90)), min_size=4, max_size=16)


@given(REJECTIONS)
def test_three_pods_in_ten_minutes_whatever_rejects_them(rejections: list[tuple[Removal, int]]) -> None:
    """All nodes change all the time in what the rejections name, and the node backoff, which only delays, is left out.

    Args:
        rejections: The cause, and after how many seconds the pod is rejected.
    """
    created: list[datetime] = []
    now, pause = make.NOW, None
    for removal, seconds in rejections:
        created.append(now)
        now += timedelta(seconds=seconds)
        pause = next_pause(NodeObserver(replace(CLUSTER, now=now)), KEY, pause, removal, "node-1", by="kubelet")
        now = max(now, _next_try(pause))

    for first, fourth in zip(created, created[3:], strict=False):
        assert fourth - first >= CLUSTER.limits.max_retry_pause
    assert all(before <= after for before, after in pairwise(created))


def _next_try(pause: RetryPause) -> datetime:
    return min(pause.retry_from, pause.until)
