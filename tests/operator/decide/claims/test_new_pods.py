"""A new pod is created for the transport of the node that it will be placed on."""

from dataclasses import replace
from typing import Any

import pytest

from gpufleet_api.workload_status import PlacementState, ReplicaPlacement
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.fleet.build import BuiltFleet
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.objects import Pod, Telemetry, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import Taint
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims

CLAIM, RESOURCE = "claim", "gpufleet.dev/gpu"
BOTH = (make.telemetry("node-1"), claims.dra_telemetry("node-2"))
NODES = (make.node("node-1"), make.node("node-2", devices=0, labels={"zone": "dra"}))


def requested(actions: Actions) -> list[str]:
    """How the created pods request their devices, by replica."""
    found = {}
    for create in actions.creates:
        (container,) = create.body["spec"]["containers"]
        resources = container["resources"]
        found[create.replica] = CLAIM if "claims" in resources else next(iter(resources["limits"]))
    return [found[index] for index in sorted(found)]


def full(telemetry: Telemetry) -> tuple[Pod, Telemetry]:
    """A pod that has all devices of a node, and the node's telemetry with its reservation."""
    holder = make.pod("holder", node=telemetry.name)
    status = telemetry.status
    assert status is not None
    reserved = make.assignment(holder, *(device.uuid for device in status.devices))
    spec = telemetry.model.spec.model_copy(update={"assignments": [reserved]})
    return holder, replace(telemetry, model=telemetry.model.model_copy(update={"spec": spec}))


@pytest.mark.parametrize(
    "requirements", [{"nodeSelector": {"zone": "dra"}}, {"includeUUIDs": ["GPU-2-0"]}], ids=["node selector", "uuid"]
)
def test_pod_that_only_nodes_with_claims_may_run_has_a_claim(requirements: dict[str, Any]) -> None:
    workload = make.workload(requirements=requirements)
    assert requested(decide(make.snapshot(workload, *NODES, *BOTH))) == [CLAIM]


def test_pod_whose_nodes_are_full_is_created_for_their_transport() -> None:
    holder, occupied = full(BOTH[1])
    workload = make.workload(requirements={"nodeSelector": {"zone": "dra"}})
    assert requested(decide(make.snapshot(workload, make.workload("holder"), holder, *NODES, BOTH[0], occupied))) == [
        CLAIM
    ]


def test_pod_has_a_claim_if_a_taint_keeps_it_from_the_other_nodes() -> None:
    tainted = make.node("node-1", taints=(Taint("dedicated", "NoSchedule", "training"),))
    assert requested(decide(make.snapshot(make.workload(), tainted, NODES[1], *BOTH))) == [CLAIM]


def test_pods_beyond_the_devices_of_the_plugin_have_claims() -> None:
    workload = make.workload(replicas=4)
    assert requested(decide(make.snapshot(workload, *NODES, *BOTH))) == [RESOURCE, RESOURCE, CLAIM, CLAIM]


def test_pods_of_several_workloads_are_expected_on_different_devices() -> None:
    workloads = [make.workload(name, devices={"count": 2}) for name in ("one", "two")]
    actions = decide(make.snapshot(*workloads, *NODES, *BOTH))
    assert sorted(requested(Actions(creates=(create,)))[0] for create in actions.creates) == [CLAIM, RESOURCE]


def test_gang_gets_both_transports_if_it_needs_the_nodes_of_both() -> None:
    workload = make.workload(replicas=2, placement={"gang": True}, devices={"count": 2})
    assert sorted(requested(decide(make.snapshot(workload, *NODES, *BOTH)))) == [CLAIM, RESOURCE]


def test_pods_that_fit_nowhere_are_created_for_the_device_plugin() -> None:
    workload = make.workload(replicas=3, placement={"gang": True}, devices={"count": 2})
    assert requested(decide(make.snapshot(workload, *NODES, *BOTH))) == [RESOURCE] * 3


def last_on(workload: Workload, node: str) -> Workload:
    placement = ReplicaPlacement(replica=0, state=PlacementState.PENDING, node=node)
    return replace(workload, stored_placements={0: placement})


def test_transport_of_the_last_node_counts_while_such_nodes_are_suitable() -> None:
    anywhere = last_on(make.workload(), "node-2")
    assert requested(decide(make.snapshot(anywhere, *NODES, *BOTH))) == [CLAIM]
    moved = last_on(make.workload(requirements={"nodeSelector": {"zone": "dra"}}), "node-1")
    assert requested(decide(make.snapshot(moved, *NODES, *BOTH))) == [CLAIM]


def test_expected_pods_leave_no_devices_held() -> None:
    built: list[Fleet] = []

    class Source(FleetSource):
        def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
            found = super().fleet(snapshot, ledger, waiting=waiting)
            built.append(found.fleet)
            return found

    actions = decide(make.snapshot(make.workload(replicas=4), *NODES, *BOTH), Source())
    assert requested(actions) == [RESOURCE, RESOURCE, CLAIM, CLAIM]
    assert built[0].nodes
    assert not any(device.held for node in built[0].nodes.values() for device in node.devices)


def test_fleet_is_not_built_for_one_transport() -> None:
    class Source(FleetSource):
        def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
            assert not waiting, "no pod waits yet"
            return super().fleet(snapshot, ledger, waiting=waiting)

    assert requested(decide(make.snapshot(make.workload(), BOTH[1]), Source())) == [CLAIM]
