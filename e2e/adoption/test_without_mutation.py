"""Adopted pods without MutatingAdmissionPolicies, as on Kubernetes 1.34 and 1.35: users write gate and request."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.support.api import JsonObject, apps, batch, pods
from gpufleet_e2e.support.claims import serves_claims
from gpufleet_e2e.support.fleet import READY_SECONDS, Fleet
from gpufleet_e2e.support.manifests import adopting, deployment, job, plain_pod, written_out
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

WORKLOAD = "gpufleet.dev/workload"


@pytest.fixture(scope="module", params=["DevicePlugin", "DRA"], autouse=True)
def transport(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """The transport of all nodes, without the policies that add gate and request."""
    transport = str(request.param)
    fleet.install(values={"transport": transport, "adoption": {"mutate": False}})
    for node in fleet.nodes if transport == "DRA" else ():
        eventually(partial(serves_claims, fleet, node), within=READY_SECONDS)
    yield transport
    fleet.restore_later()


def test_pods_with_gate_and_request_get_their_gpus(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    namespace.apply(adopting("web"), adopting("train", count=2, replicas=2), adopting("alone", count=3))
    body = deployment("web", 2)
    _write_out(body, "web", 1, transport)
    fleet.api.create(apps(namespace.name, "deployments"), body)
    body = job("train", 2, "trap 'exit 0' TERM; sleep 1000000 & wait", completionMode="Indexed")
    _write_out(body, "train", 2, transport)
    fleet.api.create(batch(namespace.name), body)
    bare = plain_pod("alone", labels={WORKLOAD: "alone"})
    bare["spec"] = written_out(bare["spec"], "alone", count=3, transport=transport)
    namespace.create_pod(bare)
    eventually(lambda: namespace.check_placed(web=2, train=2, alone=1), within=60)
    found = namespace.verify("web", "train", "alone")
    assert [len(one.picked) for one in found["train"].replicas] == [2, 2]
    fleet.api.delete(f"{apps(namespace.name, 'deployments')}/web")
    fleet.api.delete(f"{batch(namespace.name)}/train")
    fleet.api.delete(f"{pods(namespace.name)}/alone")


def test_label_alone_is_rejected_with_what_to_write(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """A pod that follows the messages one by one is accepted."""
    namespace.apply(adopting("train", count=2))
    body = plain_pod("a", labels={WORKLOAD: "train"})
    complete = written_out(body["spec"], "train", count=2, transport=transport)
    gate = "add spec.schedulingGates: [{name: gpufleet.dev/assignment}] to the pod template"
    eventually(lambda: _rejects(fleet, namespace, body, gate), within=30)
    body["spec"]["schedulingGates"] = complete["schedulingGates"]
    request = "resources.limits: {gpufleet.dev/gpu: <count>} to a container"
    if transport == "DRA":
        request = (
            "spec.resourceClaims: [{name: gpufleet, resourceClaimTemplateName: gpufleet-train}] to the pod template"
        )
    _rejects(fleet, namespace, body, request)
    body["spec"] = complete
    assert fleet.api.try_create(pods(namespace.name), body, dry_run=True).allowed


def _write_out(body: JsonObject, workload: str, count: int, transport: str) -> None:
    template = body["spec"]["template"]
    template["spec"] = written_out(template["spec"], workload, count=count, transport=transport)


def _rejects(fleet: Fleet, namespace: TestNamespace, body: JsonObject, words: str) -> None:
    response = fleet.api.try_create(pods(namespace.name), body, dry_run=True)
    assert not response.allowed
    assert words in response.message, response.message
