"""Shares by claims: what a holder does not use, what earlier runs used, and a full device."""

from datetime import UTC, datetime

import pytest

from gpufleet_e2e.faults.full_devices import MOVED_SECONDS, Crowd, Pair
from gpufleet_e2e.kubernetes_features import SHARED_CLAIMS
from gpufleet_e2e.support.api import JsonObject, demands
from gpufleet_e2e.support.claims import claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IMAGE, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, TestNamespace
from gpufleet_operator.model.demands.template import TemplateKey

pytestmark = [pytest.mark.installs("node"), pytest.mark.kubernetes(SHARED_CLAIMS)]

PROMISED, USED, LATE = 60_000, 9_000, 50_000
"""MiB. Both promises together are more than the 81,559 MiB of a device."""
LEARNED = 9_900
MOVING = Pair("greedy", 20_000, {"onPressure": "Move"})


def part(name: str, uuid: str, memory: int, **placement: str) -> JsonObject:
    """Builds a workload that shares this device."""
    return gpuworkload(name, devices={"mode": "Shared", "memoryMiB": memory}, uuids=(uuid,), placement=placement)


def test_unused_promise_of_a_claim_is_given_to_others(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: the claim of a holder that agrees keeps nothing, so kube-scheduler allocates more than was promised.

    A holder that keeps its promise is the counterpart: the operator does not place another beside it.
    """
    keeping, sharing = fleet.gpus[node].uuids[2:4]
    namespace.apply(
        part("keeps", keeping, PROMISED, reclaim="Never"), part("shares", sharing, PROMISED, reclaim="Used")
    )
    namespace.verify("keeps", "shares")
    for uuid in (keeping, sharing):
        fleet.gpus[node].report(uuid, memory_used_mib=USED)
    namespace.apply(part("late-keeps", keeping, LATE), part("late-shares", sharing, LATE))
    assert namespace.devices("late-shares") == (sharing,)
    namespace.wait_rejected("late-keeps", "InsufficientFreeMemory", 1, within=15)
    namespace.verify("keeps", "shares", "late-shares")
    assert _capacity(namespace) == {"keeps": f"{PROMISED}Mi", "shares": "1Mi", "late-shares": f"{LATE}Mi"}


def test_claim_is_for_what_earlier_runs_used(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: the operator and kube-scheduler add up the same amounts, less than was promised."""
    uuid = fleet.gpus[node].uuids[4]
    _record_runs(namespace, fleet, "learns")
    namespace.apply(part("neighbor", uuid, PROMISED))
    namespace.verify("neighbor")
    namespace.apply(part("learns", uuid, PROMISED, demand="Learned"), part("promises", uuid, PROMISED))
    assert namespace.devices("learns") == (uuid,)
    namespace.wait_rejected("promises", "InsufficientFreeMemory", 1, within=15)
    message = namespace.wait_condition("learns", "Placed", "True", "Placed")
    assert message == f"replicas: 1 on {node}; counted with 9,900 MiB learned from 5 runs"
    assert _capacity(namespace) == {"neighbor": f"{PROMISED}Mi", "learns": f"{LEARNED}Mi"}
    reservation = namespace.reservation("learns")
    assert (reservation["memoryMiB"], reservation["demandMiB"], reservation["demandRuns"]) == (PROMISED, LEARNED, 5)


def test_pod_with_a_claim_leaves_a_full_device(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: a place is reserved, the pod is evicted, and its next pod gets a claim for the place."""
    crowd = Crowd(namespace, fleet, (MOVING,), spare=1)
    assert crowd.node == node
    before = crowd.identities()
    crowd.fill()
    message = namespace.event("greedy", "Moved", within=MOVED_SECONDS)
    assert "uses 41.0 GiB of 19.5 promised" in message
    assert namespace.devices("greedy") == (crowd.spare[0],)
    after = crowd.identities()
    assert {name for name in before if after[name] != before[name]} == {"greedy"}
    source = crowd.devices["greedy"]
    assert eventually(lambda: namespace.reservation("greedy"), within=FREE_SECONDS)["movedFrom"]["device"] == source
    namespace.verify(*crowd.devices)


def _record_runs(namespace: TestNamespace, fleet: Fleet, name: str) -> None:
    """Stores what five runs of a workload's template used, as the operator does."""
    key = TemplateKey(namespace.name, "GPUWorkload", name, "main", IMAGE.partition(":")[0])
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"  # old runs are deleted
    run = {"since": at, "state": "Ended", "promisedMiB": PROMISED, "maxMiB": USED}
    status = {
        "observedAt": at,
        "totalRuns": 5,
        "countedRuns": 5,
        "promisedMiB": PROMISED,
        "medianMiB": USED,
        "p80MiB": USED,
        "maxMiB": USED,
        "recommendedMiB": LEARNED,
        "runs": [{**run, "podUID": f"run-{number}"} for number in range(5)],
    }
    path = demands(namespace.name)
    owner = {"kind": key.owner_kind, "name": key.owner}
    fleet.api.create(
        path,
        {
            "apiVersion": "gpufleet.dev/v1alpha1",
            "kind": "GPUDemand",
            "metadata": {"name": key.name},
            "spec": {"owner": owner, "container": key.container, "image": key.image},
        },
    )
    fleet.api.patch(f"{path}/{key.name}/status", {"status": status})


def _capacity(namespace: TestNamespace) -> dict[str, str]:
    """Returns what the claims of each workload request."""
    found = {}
    for claim in namespace.fleet.api.list(claims(namespace.name)):
        (request,) = claim["spec"]["devices"]["requests"]
        name = claim["metadata"]["labels"]["gpufleet.dev/workload"]
        found[name] = str(request["exactly"]["capacity"]["requests"]["memory"])
    return found
