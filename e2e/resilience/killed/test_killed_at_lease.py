"""The operator is killed before and after each write of the Lease, and the end is that without kills (I6).

A successor waits until the Lease of a killed process expires, and takes over at once from one that released it.
"""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import BOTH, Life, Stage, check_life, ready
from gpufleet_e2e.faults.mortal_operator import MortalOperator, mortal_operator
from gpufleet_e2e.support.fleet import LEASE, Fleet
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

pytestmark = pytest.mark.installs("electing")

KILLS = {
    writes.CREATE_LEASE: BOTH,
    writes.ACQUIRE_LEASE: BOTH,
    writes.RENEW_LEASE: BOTH,
    writes.RELEASE_LEASE: BOTH,
}


@pytest.fixture(scope="module")
def electing(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalOperator]:
    """An operator that leads by a Lease."""
    fleet.install(operator={"nodeConditions": True})
    with mortal_operator(fleet, tmp_path_factory.mktemp("operator"), "--leader-election=true") as found:
        yield found
    fleet.restore_later()


def test_kills_at_each_write_of_the_lease_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, electing: MortalOperator
) -> None:
    """A workload is placed meanwhile; the Lease is deleted, so that it is created again; processes end by SIGTERM."""

    def placed_by_many_leaders(stage: Stage) -> None:
        stage.apply(count=2, replicas=2, placement={"gang": True})
        stage.fleet.api.delete(LEASE)
        stage.namespace.wait_ready(stage.name, within=stage.within)
        for _ in BOTH:
            eventually(electing.check_leads, within=stage.within)
            electing.hand_over()
        eventually(electing.check_leads, within=stage.within)

    check_life(namespace, electing, Life(KILLS, placed_by_many_leaders, ready), fleet.nodes[1])
