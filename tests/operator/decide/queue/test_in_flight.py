"""A replica whose siblings have writes without a response."""

import pytest

from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make

FIRST, SECOND = make.pod(replica=0), make.pod(replica=1)


def decided(in_flight: bool, **placement: str) -> Actions:
    """Decides on the second replica. The first one has a device of node-1, which is the better one of the two."""
    workload = make.workload(replicas=2, placement=placement)
    reserved = make.assignment(FIRST, "GPU-1-0")
    return decide(
        make.snapshot(
            workload,
            FIRST,
            SECOND,
            make.telemetry(assignments=[reserved]),
            make.telemetry("node-2", temperatureCelsius=60),
            state=PassState(pods_in_flight=frozenset({FIRST.uid} if in_flight else ())),
        )
    )


def second(actions: Actions) -> list[str]:
    """Nodes on which devices are reserved for the second replica."""
    return [r.node for r in actions.reserves if any(a.pod_uid == SECOND.uid for a in r.assignments)]


@pytest.mark.parametrize("in_flight", [True, False])
def test_spread_counts_a_sibling_whose_release_has_no_response(in_flight: bool) -> None:
    assert second(decided(in_flight, strategy="Spread")) == ["node-2"]


def test_same_node_waits_for_the_response_to_a_release() -> None:
    assert second(decided(False, topology="SameNode")) == ["node-1"]
    assert second(decided(True, topology="SameNode")) == []
