"""The operator is killed before and after kinds of writes, once each, and the end is that without kills (I6).

The operator runs in the tests' environment, behind a proxy that knows its writes. `tests/operator/lifecycle` kills it
at every single write, on a cluster in memory.
"""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import BOTH, Life, check_life, ready, ready_first, suspended
from gpufleet_e2e.faults.mortal_operator import MortalOperator, mortal_operator
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.sandbox import TestNamespace

PLACEMENT = {
    writes.CREATE_SERVICE: BOTH,
    writes.CREATE_POD: BOTH,
    writes.RESERVE: BOTH,
    writes.RELEASE: BOTH,
    writes.STATUS: BOTH,
}
OF_PLUGIN = {writes.PROVE: BOTH}
OF_CLAIMS = {writes.CREATE_CLAIM: BOTH}


def lives(transport: str) -> dict[str, Life]:
    return {
        "placement": Life(
            PLACEMENT | (OF_CLAIMS if transport == "DRA" else OF_PLUGIN),
            lambda stage: stage.apply(count=2, replicas=2, placement={"gang": True}),
            ready,
        ),
        "suspension": Life(
            {writes.DELETE_POD: BOTH, writes.FREE: BOTH},
            ready_first(lambda stage: stage.edit(suspend=True)),
            suspended,
        ),
    }


@pytest.fixture(scope="module")
def operator(fleet: Fleet, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalOperator]:
    """An operator that makes all kinds of writes."""
    fleet.install(values={"transport": transport}, operator={"scaleUp": True, "nodeConditions": True})
    with mortal_operator(fleet, tmp_path_factory.mktemp("operator")) as found:
        yield found
    if transport == "DevicePlugin":  # `transport` ends the other one
        fleet.install()


@pytest.mark.parametrize("life", ["placement", "suspension"])
def test_kills_at_each_kind_of_write_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, transport: str, operator: MortalOperator, life: str
) -> None:
    check_life(namespace, operator, lives(transport)[life], fleet.nodes[1])
