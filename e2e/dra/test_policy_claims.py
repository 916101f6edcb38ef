"""Attempts to get devices past the operator, by a user who may create claims, or by an administrator.

Administrators hold all verbs, also `assign`: they may create claims of the class, and nothing else of this page.
"""

from functools import partial

import pytest

from gpufleet_e2e.identities import Client, assert_allowed, assert_denied
from gpufleet_e2e.identities.accounts import token
from gpufleet_e2e.kubernetes_features import CLASS_RESOURCES
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_e2e.support.api import Api, JsonObject, pods
from gpufleet_e2e.support.claims import (
    API,
    CLASSES,
    DRIVER,
    SLICES,
    claiming_pod,
    claiming_spec,
    claims,
    device_class,
    resource_claim,
    slice_of,
)
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE, RELEASE
from gpufleet_e2e.support.manifests import adopting, container, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

GIVEN_OUT = "devices of class gpu.gpufleet.dev are given out by the gpufleet operator; create a GPUWorkload instead"
BELONGS = "ResourceClaims whose name begins with gpufleet- belong to the pods of GPUWorkloads"
SECONDS = 15


def _user_with_claims_and_pods(namespace: TestNamespace, fleet: Fleet) -> Api:
    path, name = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}", "claims"
    rules = [
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]},
    ]
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    fleet.api.create(f"{path}/roles", {**head, "kind": "Role", "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    binding = {**head, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}
    fleet.api.create(f"{path}/rolebindings", binding)
    return Api(fleet.cluster.kubeconfig, user="alice")


def _first_available(claim: JsonObject) -> JsonObject:
    request = {"name": "gpu", "firstAvailable": [{"name": "one", "deviceClassName": DRIVER}]}
    return {**claim, "spec": {"devices": {"requests": [request]}}}


@pytest.mark.usefixtures("node")
def test_claim_of_the_class_is_rejected(namespace: TestNamespace, fleet: Fleet) -> None:
    user = _user_with_claims_and_pods(namespace, fleet)
    claim = resource_claim("intruder", "GPU-x", of_class=DRIVER)

    def rejected(body: JsonObject) -> None:
        response = user.call("POST", claims(namespace.name), body)
        assert (response.allowed, GIVEN_OUT in response.message) == (False, True), response.message

    for body in (claim, _first_available(claim)):
        eventually(partial(rejected, body), within=SECONDS)  # the apiserver sees the new role a moment late
    user.close()


@pytest.mark.usefixtures("node")
def test_claim_template_of_the_class_is_rejected(namespace: TestNamespace, fleet: Fleet) -> None:
    claim = resource_claim("intruder", "GPU-x", of_class=DRIVER)
    template = {**claim, "kind": "ResourceClaimTemplate", "spec": {"spec": claim["spec"]}}
    response = fleet.api.call("POST", f"{API}/namespaces/{namespace.name}/resourceclaimtemplates", template)
    assert (response.allowed, GIVEN_OUT in response.message) == (False, True), response.message


@pytest.mark.usefixtures("node")
def test_template_that_pods_refer_to_is_rejected(namespace: TestNamespace, fleet: Fleet) -> None:
    claim = resource_claim("gpufleet-train", "GPU-x")
    template = {**claim, "kind": "ResourceClaimTemplate", "spec": {"spec": claim["spec"]}}
    response = fleet.api.call("POST", f"{API}/namespaces/{namespace.name}/resourceclaimtemplates", template)
    assert not response.allowed
    assert "must not have a name that begins with gpufleet-" in response.message


@pytest.mark.parametrize("adopted", [False, True], ids=["pod of a template", "pod of another owner"])
def test_pod_with_the_claim_of_another_pod_is_rejected(
    namespace: TestNamespace, fleet: Fleet, node: str, adopted: bool
) -> None:
    """Both pods would run on the device, and the kubelet would not ask the driver again."""
    user = _user_with_claims_and_pods(namespace, fleet)
    if adopted:
        namespace.apply(adopting("owner"))
        body = plain_pod("owner", labels={WORKLOAD_LABEL: "owner"}, **claiming_spec("owner"))
        namespace.create_pod(body)
    else:
        namespace.apply(gpuworkload("owner", node=node))
    namespace.verify("owner")
    (claim,) = fleet.api.list(claims(namespace.name))

    def rejected() -> None:
        response = user.call("POST", pods(namespace.name), claiming_pod("intruder", claim["metadata"]["name"]))
        assert (response.allowed, BELONGS in response.message) == (False, True), response.message

    eventually(rejected, within=SECONDS)  # the apiserver sees the new role a moment late
    allowed = user.call("POST", pods(namespace.name), claiming_pod("other", "mine"))
    user.close()
    assert allowed.allowed, allowed.message
    for name in ("other", *(["owner"] if adopted else [])):
        fleet.api.delete(f"{pods(namespace.name)}/{name}")


def test_agent_writes_slices_of_its_own_node_and_driver_only(fleet: Fleet, node: str) -> None:
    """Mechanism: the apiserver knows the node of the pod that the agent's token is bound to."""
    admin = Client(fleet.cluster.kubeconfig)
    agent = Client(fleet.cluster.kubeconfig, token(admin, NAMESPACE, f"{RELEASE}-agent", fleet.agent_pod(node)))
    own = f"{SLICES}/{slice_of(fleet, node)['metadata']['name']}"
    assert_allowed(agent.patch(own, {"metadata": {"labels": {"a": "b"}}}))
    assert_denied(
        agent.create(SLICES, _slice(fleet.nodes[0], DRIVER)), f"agent on {node} may not write ResourceSlice intruder"
    )
    assert_denied(
        agent.create(SLICES, _slice(node, "gpu.nvidia.com")),
        "an agent may write ResourceSlices of driver gpu.gpufleet.dev only",
    )
    agent.close()
    admin.close()


def _slice(node: str, driver: str) -> JsonObject:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": driver, "nodeName": node, "pool": pool, "devices": []}
    head = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "intruder"}}
    return {**head, "spec": spec}


@pytest.mark.kubernetes(CLASS_RESOURCES)
@pytest.mark.usefixtures("node")
def test_pod_with_the_resource_of_the_class_gets_no_device(namespace: TestNamespace, fleet: Fleet) -> None:
    """Every class has a resource of its name, for which kube-scheduler creates claims, without a toleration."""
    limits = {f"deviceclass.resource.kubernetes.io/{DRIVER}": "1"}
    intruder = plain_pod("intruder", containers=[container(resources={"limits": limits})])
    fleet.api.create(pods(namespace.name), intruder)

    def waits() -> None:
        conditions = fleet.api.get(f"{pods(namespace.name)}/intruder")["status"].get("conditions", [])
        assert "cannot allocate all claims" in str(conditions), conditions

    eventually(waits, within=SECONDS)


@pytest.mark.kubernetes(CLASS_RESOURCES)
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("resource", ["gpufleet.dev/gpu", "gpufleet.dev/mig-1g.10gb"])
def test_class_with_a_resource_of_the_plugin_is_rejected(fleet: Fleet, resource: str) -> None:
    response = fleet.api.call("POST", CLASSES, device_class("intruder", extendedResourceName=resource))
    assert not response.allowed
    assert f"resource {resource} is served by the device plugin" in response.message
