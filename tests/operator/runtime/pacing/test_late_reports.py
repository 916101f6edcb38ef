"""Conditions of many nodes are written by several passes, none of which looks at all nodes."""

from collections.abc import Sequence

import pytest

from gpufleet_operator.decide.incremental import decide_changes
from gpufleet_operator.decide.incremental.region import Region, Seeds, close
from gpufleet_operator.decide.reports import MAX_PER_PASS
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.process import OperatorProcess

NODES = 10 * MAX_PER_PASS


async def test_first_conditions_of_many_nodes_are_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(nodes=NODES, devices=1)
    operator = OperatorProcess(cluster)
    looked_at: list[int] = []

    def noted(seeds: Seeds, snapshot: Snapshot, index: ClusterIndex) -> Region:
        region = close(seeds, snapshot, index)
        looked_at.append(len(region.nodes))
        return region

    monkeypatch.setattr(decide_changes, "close", noted)
    for _ in range(1, 3 * NODES // MAX_PER_PASS):
        operator.hear(10_000)
        due = await operator.act()
        if not _without_conditions(cluster):
            break
        assert due is not None
        assert (due - cluster.now).total_seconds() <= 1, "the next part does not wait for a change"
        cluster.advance(0.1)

    assert not _without_conditions(cluster)
    # Those of the pass before, whose conditions may have been stored by another operator, and the next ones.
    assert max(looked_at) <= 3 * MAX_PER_PASS


def _without_conditions(cluster: FakeCluster) -> Sequence[str]:
    return [body["metadata"]["name"] for body in cluster.of("telemetry") if not body["status"].get("conditions")]
