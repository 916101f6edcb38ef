"""The operator is killed before and after kinds of writes, once each, and the end is that without kills (I6).

The operator runs in the tests' environment, behind a proxy that knows its writes. `tests/operator/lifecycle` kills it
at every single write, on a cluster in memory.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_api.names import WORKLOAD_LABEL
from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import BOTH, Life, Stage, check_life, ready, ready_first, reservations, suspended
from gpufleet_e2e.faults.mortal_operator import MortalOperator, mortal_operator
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.claims import claiming_spec, claims, serves_claims
from gpufleet_e2e.support.fleet import READY_SECONDS, Fleet
from gpufleet_e2e.support.install import BY_HAND
from gpufleet_e2e.support.manifests import adopting, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

SOON_SECONDS = 30
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


def gets_another_claim(stage: Stage) -> None:
    """A device becomes unhealthy after a pod of no owner was released, and before a scheduler has seen it."""
    fleet, namespace = stage.fleet, stage.namespace
    broken, other = fleet.gpus[stage.node].uuids[:2]
    fleet.gpus[stage.node].report(other, utilization_percent=60)
    eventually(lambda: fleet.check_readings(stage.node, other, utilization_percent=60), within=SOON_SECONDS)
    namespace.apply(adopting(stage.name, requirements={"includeUUIDs": [broken, other]}))
    spec = {**claiming_spec(stage.name), "schedulerName": BY_HAND}
    namespace.create_pod(plain_pod(stage.name, labels={WORKLOAD_LABEL: stage.name}, **spec))
    eventually(lambda: _is_released(stage), within=stage.within)
    fleet.gpus[stage.node].report(broken, recovery_action=1)
    eventually(lambda: _claims(stage, other), within=stage.within)
    fleet.gpus[stage.node].report(broken, recovery_action=0)
    eventually(lambda: fleet.check_healthy(stage.node, broken), within=SOON_SECONDS)


def _is_released(stage: Stage) -> None:
    gates = [pod["spec"].get("schedulingGates") for pod in stage.fleet.api.list(pods(stage.namespace.name))]
    assert gates == [None], gates


def _claims(stage: Stage, uuid: str) -> None:
    found = [str(claim["spec"]) for claim in stage.fleet.api.list(claims(stage.namespace.name))]
    assert [uuid in spec for spec in found] == [True], found
    assert [one["devices"] for one in reservations(stage)] == [[uuid]]


@pytest.fixture(scope="module", params=["DevicePlugin", "DRA"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport of all nodes, with which `operator` installs the chart."""
    return str(request.param)


@pytest.fixture(scope="module")
def operator(fleet: Fleet, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalOperator]:
    """An operator that makes all kinds of writes."""
    fleet.install(values={"transport": transport}, operator={"scaleUp": True, "nodeConditions": True})
    for node in fleet.nodes if transport == "DRA" else ():
        eventually(partial(serves_claims, fleet, node), within=READY_SECONDS)
    with mortal_operator(fleet, tmp_path_factory.mktemp("operator")) as found:
        yield found
    fleet.restore_later()


@pytest.mark.parametrize("life", ["placement", "suspension"])
def test_kills_at_each_kind_of_write_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, transport: str, operator: MortalOperator, life: str
) -> None:
    check_life(namespace, operator, lives(transport)[life], fleet.nodes[1])


@pytest.mark.parametrize("transport", ["DRA"], indirect=True, scope="module")
def test_kills_at_the_deletion_of_a_claim_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, transport: str, operator: MortalOperator
) -> None:
    """Only pods of other owners get another claim."""
    del transport
    life = Life({writes.DELETE_CLAIM: BOTH}, gets_another_claim, lambda stage: _claims(stage, _second(stage)))
    check_life(namespace, operator, life, fleet.nodes[1])


def _second(stage: Stage) -> str:
    return stage.fleet.gpus[stage.node].uuids[1]
