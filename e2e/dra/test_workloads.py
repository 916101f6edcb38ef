"""GPUWorkloads on nodes with transport DRA: the operator creates the claims of their pods."""

from functools import partial

import pytest

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked
from gpufleet_e2e.kubernetes_features import SHARED_CLAIMS
from gpufleet_e2e.proof.contract import ANNOTATION, WORKLOAD_LABEL
from gpufleet_e2e.proof.evidence import Source
from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.churn import Churn
from gpufleet_e2e.support.claims import claiming_spec, claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND
from gpufleet_e2e.support.manifests import (
    SHARD,
    adopting,
    container,
    gpuworkload,
    labeled_template,
    plain_pod,
    pod_spec,
)
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

pytestmark = pytest.mark.installs("node")

QUOTA = "gpu.gpufleet.dev.deviceclass.resource.k8s.io/devices"
GANG = {"gang": True, "strategy": "Spread"}
SECONDS = 15
CHURN_SECONDS = 8


def test_workload_gets_its_reserved_devices_by_a_claim(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """All sources name the same devices, kube-scheduler's allocation included; with the pod, the claim goes."""
    namespace.apply(gpuworkload("one", count=3, node=node))
    evidence = namespace.verify("one")["one"]
    (replica,) = evidence.replicas
    assert replica.says[Source.CLAIM].devices == replica.picked
    assert len(replica.picked) == 3
    (claim,) = fleet.api.list(claims(namespace.name))
    assert claim["metadata"]["name"] == f"gpufleet-{replica.pod}"
    (assignment,) = fleet.assignments(namespace.name).values()
    assert assignment["resource"] == "gpu.gpufleet.dev"
    namespace.delete("one")
    eventually(lambda: _no_claims(namespace), within=SECONDS)


def test_gang_with_shards_runs_on_nodes_of_both_transports(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    items = {"items": 1000, "mode": "Proportional", "by": "TotalMemory"}
    template = pod_spec(container(command=SHARD))
    namespace.apply(gpuworkload("gang", replicas=3, count=7, template=template, placement=GANG, distribution=items))
    evidence = namespace.verify("gang")["gang"]
    assert sorted(replica.node for replica in evidence.replicas) == sorted([fleet.nodes[0], fleet.nodes[0], node])
    assert [Source.CLAIM in one.says for one in evidence.replicas] == [one.node == node for one in evidence.replicas]


@pytest.mark.kubernetes(SHARED_CLAIMS)
def test_sharers_get_their_promised_memory_by_claims(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    uuid = fleet.gpus[node].uuids[4]
    devices = {"count": 1, "mode": "Shared", "memoryMiB": 20_000}
    namespace.apply(gpuworkload("sharers", replicas=3, uuids=(uuid,), devices=devices))
    evidence = namespace.verify("sharers")["sharers"]
    assert {replica.picked for replica in evidence.replicas} == {(uuid,)}
    amounts = {_memory(claim) for claim in fleet.api.list(claims(namespace.name))}
    assert amounts == {"20000Mi"}


def test_operator_that_dies_before_the_release_completes_it(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Reserved, then claimed, then released: it dies after the first step, and after the second one."""
    with release_blocked(fleet.api, namespace.name):
        namespace.apply(
            gpuworkload("blocked", count=2, node=node, labels=BLOCKED_LABELS),
            gpuworkload("unclaimed", count=2, node=node, labels=BLOCKED_LABELS),
        )
        before = eventually(partial(_claims, namespace, 2), within=SECONDS)
        fleet.stop_operator()
        lost = next(name for name in before if name.startswith("gpufleet-unclaimed"))
        fleet.api.delete(f"{claims(namespace.name)}/{lost}")
        fleet.start_operator()
        after = eventually(partial(_claims, namespace, 2), within=SECONDS * 2)
        assert after[lost]["metadata"]["uid"] != before[lost]["metadata"]["uid"]
        assert {name: one["spec"] for name, one in after.items()} == {name: one["spec"] for name, one in before.items()}
    namespace.verify("blocked", "unclaimed")


def test_claim_that_is_deleted_by_hand_is_created_again(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """The pod is released, and no scheduler has seen it."""
    template = pod_spec(schedulerName=BY_HAND)
    namespace.apply(gpuworkload("waits", node=node, template=template))
    (name, before), *_ = eventually(partial(_claims, namespace, 1), within=SECONDS).items()
    eventually(lambda: _released(namespace, "waits"), within=SECONDS)
    fleet.api.delete(f"{claims(namespace.name)}/{name}")
    after = eventually(partial(_claims, namespace, 1), within=SECONDS)[name]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]


def test_pod_gets_another_claim_when_its_device_becomes_unhealthy(
    namespace: TestNamespace, fleet: Fleet, node: str
) -> None:
    """Mechanism: the claim is deleted, then the reservation and the annotation change, then the new claim is created.

    The pod has no owner, is released, and no scheduler has seen it. It stays, and says what it waits for while the
    other device is unhealthy, too: Kubernetes writes no condition on a pod whose claim is missing.
    """
    broken, other = fleet.gpus[node].uuids[:2]
    fleet.gpus[node].report(other, utilization_percent=60)
    eventually(partial(fleet.check_readings, node, other, utilization_percent=60), within=30)
    namespace.apply(adopting("alone", requirements={"includeUUIDs": [broken, other]}))
    body = plain_pod("alone", labels={WORKLOAD_LABEL: "alone"}, **claiming_spec("alone"), schedulerName=BY_HAND)
    namespace.create_pod(body)
    (name, before), *_ = eventually(partial(_claims, namespace, 1), within=SECONDS).items()
    assert broken in str(before["spec"])
    eventually(lambda: _is_released(namespace, "alone"), within=SECONDS)
    uid = fleet.api.get(f"{pods(namespace.name)}/alone")["metadata"]["uid"]
    for uuid in (other, broken):
        fleet.gpus[node].report(uuid, recovery_action=1)
    message = namespace.event("alone", "WaitingForDevices", within=SECONDS)
    assert "became unhealthy before the pod started; 0/24 GPUs are available" in message, message
    fleet.gpus[node].report(other, recovery_action=0)
    after = eventually(lambda: _claim_of(namespace, name, other), within=SECONDS)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "became unhealthy before the pod started" in namespace.event("alone", "Reassigned")
    assert namespace.reservation("alone")["devices"] == [other]
    pod = fleet.api.get(f"{pods(namespace.name)}/alone")
    assert pod["metadata"]["uid"] == uid
    assert other in pod["metadata"]["annotations"][ANNOTATION]
    fleet.gpus[node].report(broken, recovery_action=0)
    # A driver that reports no action at all, as after the test, does not end the fault.
    eventually(partial(fleet.check_healthy, node, broken), within=SECONDS)
    fleet.api.delete(f"{pods(namespace.name)}/alone")


def test_claim_beyond_the_quota_waits_with_a_condition(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """The devices are not kept meanwhile."""
    path = f"/api/v1/namespaces/{namespace.name}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {QUOTA: "1"}}}
    fleet.api.create(path, quota)
    eventually(lambda: _has_usage(fleet.api.get(f"{path}/q")), within=SECONDS)
    namespace.apply(gpuworkload("two", count=2, node=node))
    message = namespace.wait_condition("two", "Reconciling", "True", "QuotaExceeded")
    assert QUOTA in message
    eventually(lambda: _unreserved(fleet, namespace), within=SECONDS)
    fleet.api.patch(f"{path}/q", {"spec": {"hard": {QUOTA: "2"}}})
    namespace.verify("two")


def test_workloads_get_each_device_once_while_pods_are_deleted_by_force(
    namespace: TestNamespace, fleet: Fleet, node: str
) -> None:
    """On nodes of both transports, with containers that ignore SIGTERM."""
    del fleet, node
    churn = Churn(namespace, seed=14)
    left = churn.run(CHURN_SECONDS)
    print(churn.done)
    namespace.verify(*left)


def test_pods_of_other_owners_get_their_devices_by_claims(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """A Deployment and a bare pod name a template that does not exist; the operator creates their claims."""
    namespace.apply(adopting("web", count=2), adopting("alone"))
    deployments, bare = f"/apis/apps/v1/namespaces/{namespace.name}/deployments", pods(namespace.name)
    fleet.api.create(deployments, _deployment("web", 2))
    namespace.create_pod(plain_pod("alone", labels={WORKLOAD_LABEL: "alone"}, **claiming_spec("alone")))
    eventually(lambda: _all_running(namespace, web=2, alone=1), within=SECONDS * 3)
    evidence = namespace.verify("web", "alone")
    assert {replica.node for one in evidence.values() for replica in one.replicas} == {node}
    fleet.api.delete(f"{deployments}/web")
    fleet.api.delete(f"{bare}/alone")
    eventually(lambda: _no_claims(namespace), within=SECONDS * 2)


def test_init_container_has_the_devices_first(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: both use the claim of the pod. The device plugin's kubelet does not survive restarts of such pods."""
    del node
    namespace.apply(adopting("checks", count=2))
    spec = claiming_spec("checks")
    checks = ("sh", "-c", 'echo $GPUFLEET_DEVICES; test -n "$GPUFLEET_DEVICES"')
    uses = {"resources": {"claims": [{"name": "gpufleet"}]}}
    spec["initContainers"] = [container("check", command=checks, **uses)]
    namespace.create_pod(plain_pod("checks", labels={WORKLOAD_LABEL: "checks"}, **spec))
    eventually(lambda: _all_running(namespace, checks=1), within=SECONDS * 2)
    (replica,) = namespace.verify("checks")["checks"].replicas
    said = fleet.api.text(f"{pods(namespace.name)}/checks/log?container=check").strip()
    assert sorted(said.split(",")) == sorted(replica.picked)
    fleet.api.delete(f"{pods(namespace.name)}/checks")


def _deployment(name: str, replicas: int) -> JsonObject:
    template = {**labeled_template(name), "spec": claiming_spec(name)}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def _all_running(namespace: TestNamespace, **replicas: int) -> None:
    for name, number in replicas.items():
        found = [pod["status"]["phase"] for pod in namespace.all_pods(name)]
        assert found == ["Running"] * number, namespace.describe(name)


def _claims(namespace: TestNamespace, number: int) -> dict[str, JsonObject]:
    """The claims that are not being deleted."""
    found = {one["metadata"]["name"]: one for one in namespace.fleet.api.list(claims(namespace.name))}
    kept = {name: one for name, one in found.items() if "deletionTimestamp" not in one["metadata"]}
    assert len(kept) == number, f"{sorted(found)}"
    return kept


def _no_claims(namespace: TestNamespace) -> None:
    left = namespace.fleet.api.list(claims(namespace.name))
    assert not left, [one["metadata"]["name"] for one in left]


def _claim_of(namespace: TestNamespace, name: str, uuid: str) -> JsonObject:
    claim = _claims(namespace, 1)[name]
    assert uuid in str(claim["spec"]), claim["spec"]
    return claim


def _is_released(namespace: TestNamespace, pod: str) -> None:
    assert not namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["spec"].get("schedulingGates")


def _memory(claim: JsonObject) -> str:
    (request,) = claim["spec"]["devices"]["requests"]
    return str(request["exactly"]["capacity"]["requests"]["memory"])


def _released(namespace: TestNamespace, name: str) -> None:
    assert not namespace.pod(name)["spec"].get("schedulingGates")


def _has_usage(quota: JsonObject) -> None:
    assert quota.get("status", {}).get("used")


def _unreserved(fleet: Fleet, namespace: TestNamespace) -> None:
    assert not fleet.assignments(namespace.name)
