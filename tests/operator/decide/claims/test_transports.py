"""A pod requests devices in the way of the nodes that fit its replica."""

import pytest

from gpufleet_api.names import DRA_DRIVER, Transport
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.fleet.build import BuiltFleet
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Telemetry
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import Decision, Request
from gpufleet_operator.placement.packing.mix import Mix
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims

ON_DRA = {"nodeSelector": {"zone": "dra"}}


def created(*objects: Telemetry, limits: Limits | None = None, state: PassState | None = None) -> list[str]:
    """How the pods of a new workload request their devices."""
    actions = decide(make.snapshot(make.workload(), *objects, limits=limits, state=state))
    found = []
    for create in actions.creates:
        (container,) = create.body["spec"]["containers"]
        found.append("claim" if "claims" in container["resources"] else next(iter(container["resources"]["limits"])))
    return found


def test_pods_of_a_fleet_with_claims_only_have_claims() -> None:
    assert created(claims.dra_telemetry()) == ["claim"]
    assert created(make.telemetry()) == ["gpufleet.dev/gpu"]
    assert created(make.telemetry(), claims.dra_telemetry("node-2")) == ["gpufleet.dev/gpu"]


def test_pods_have_no_claims_if_the_operator_may_not_create_them() -> None:
    assert created(claims.dra_telemetry(), limits=Limits(claims=False)) == ["gpufleet.dev/gpu"]


def test_claim_of_a_new_pod_has_its_name() -> None:
    (create,) = decide(make.snapshot(make.workload(), claims.dra_telemetry())).creates
    spec = create.body["spec"]
    assert spec["resourceClaims"] == [{"name": "gpufleet", "resourceClaimName": f"gpufleet-{create.name}"}]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "gpufleet"}]


def test_pod_is_replaced_if_only_nodes_of_the_other_transport_fit() -> None:
    workload = make.workload(requirements=ON_DRA)
    nodes = (make.node("node-1"), make.node("node-2", devices=0, labels={"zone": "dra"}))
    fleet = (make.telemetry("node-1"), claims.dra_telemetry("node-2"))
    actions = decide(make.snapshot(workload, make.pod(), *nodes, *fleet))
    assert [(delete.reason, delete.message) for delete in actions.deletes] == [
        ("TransportChanged", "nodes with transport DRA have devices for it")
    ]
    assert not actions.reserves
    assert actions.state.transports == {(workload.uid, 0): Transport.DRA}
    again = decide(make.snapshot(workload, *nodes, *fleet, state=actions.state))
    assert "resourceClaims" in again.creates[0].body["spec"]


def test_pod_is_placed_on_nodes_of_its_transport() -> None:
    fleet = (make.telemetry("node-1"), claims.dra_telemetry("node-2"))
    plugin = decide(make.snapshot(make.workload(), make.pod(), *fleet))
    assert [reserve.node for reserve in plugin.reserves] == ["node-1"]
    pod = claims.claiming(make.pod())
    claimed = decide(make.snapshot(make.workload(), pod, *fleet))
    (reserve,) = claimed.reserves
    assert (reserve.node, reserve.assignments[0].resource) == ("node-2", DRA_DRIVER)


def test_gang_is_placed_on_nodes_of_both_transports() -> None:
    workload = make.workload(replicas=2, placement={"gang": True}, devices={"count": 2})
    fleet = (make.telemetry("node-1"), claims.dra_telemetry("node-2"))
    pods = [make.pod(replica=0), make.pod(replica=1)]
    actions = decide(make.snapshot(workload, *pods, *fleet))
    (delete,) = actions.deletes
    assert (delete.reason, len(actions.reserves)) == ("TransportChanged", 0)
    (left,) = [pod for pod in pods if pod.uid != delete.uid]
    new = claims.claiming(make.pod(replica=1 - (left.replica or 0), suffix="b"))
    placed = decide(make.snapshot(workload, left, new, *fleet, state=actions.state))
    assert sorted(reserve.node for reserve in placed.reserves) == ["node-1", "node-2"]
    assert [create.pod_uid for create in placed.claims] == [new.uid]
    assert len(placed.releases) == 2


def test_exception_in_the_second_placement_leaves_no_devices_held(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Fleet] = []

    class Source(FleetSource):
        def fleet(self, snapshot: Snapshot, ledger: Ledger, *, waiting: bool) -> BuiltFleet:
            found = super().fleet(snapshot, ledger, waiting=waiting)
            built.append(found.fleet)
            return found

    def fail_for_one_replica(fleet: Fleet, requested: Request, mix: Mix) -> Decision:
        if len(requested.replicas) == 1:
            raise ZeroDivisionError
        return place(fleet, requested, mix)

    monkeypatch.setattr("gpufleet_operator.decide.plan.place", fail_for_one_replica)
    workload = make.workload(replicas=2, devices={"count": 2})
    fleet = (make.telemetry("node-1"), claims.dra_telemetry("node-2"))
    pods = [make.pod(replica=0), make.pod(replica=1)]
    actions = decide(make.snapshot(workload, *pods, *fleet), Source())

    assert list(actions.failed_decisions) == [workload.uid]
    assert not any(device.held for node in built[-1].nodes.values() for device in node.devices)


def test_reservation_on_a_node_that_changed_its_transport_is_made_again() -> None:
    pod = make.pod()
    reserved = make.assignment(pod)
    fleet = (claims.dra_telemetry("node-1", reserved), make.telemetry("node-2"))
    actions = decide(make.snapshot(make.workload(), pod, *fleet))
    assert {reserve.node: reserve.added for reserve in actions.reserves} == {"node-1": (), "node-2": (pod.uid,)}
