"""What cluster-autoscaler sees: pods that it adds nodes for, and nodes that it must not remove."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.proof import contract
from gpufleet_e2e.support.api import NODES, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND, NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, READY_SECONDS, TestNamespace

pytestmark = pytest.mark.installs("operator")

KEPT = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
MARK_SECONDS = 15
QUOTA_RETRY_SECONDS = 30


@pytest.fixture(scope="module", autouse=True)
def operator(fleet: Fleet) -> Iterator[None]:
    """An operator that writes for cluster-autoscaler."""
    fleet.install(operator={"scaleUp": True})
    yield
    fleet.restore_later()


def seen(fleet: Fleet, namespace: str) -> list[JsonObject]:
    """Returns the pods for which cluster-autoscaler and Karpenter add nodes."""
    return [
        pod
        for pod in fleet.api.list(pods(namespace))
        if not pod["spec"].get("nodeName")
        and not pod["spec"].get("schedulingGates")
        and "deletionTimestamp" not in pod["metadata"]
        and pod["status"]["phase"] == "Pending"
        and any(
            (one["type"], one["status"], one.get("reason")) == ("PodScheduled", "False", "Unschedulable")
            for one in pod["status"].get("conditions", [])
        )
    ]


def kept(fleet: Fleet, node: str) -> str | None:
    """Returns the value of the annotation of a node."""
    found: str | None = fleet.api.get(f"{NODES}/{node}")["metadata"].get("annotations", {}).get(KEPT)
    return found


def test_placeholders_exist_until_the_workload_fits(namespace: TestNamespace, fleet: Fleet) -> None:
    """The real kube-scheduler never binds a placeholder, also when there is room for it."""
    node = fleet.nodes[1]
    count = len(fleet.gpus[node].uuids)
    namespace.apply(gpuworkload("holder", count=count, node=node))
    namespace.verify("holder")
    namespace.apply(gpuworkload("plain", count=count, node=node))
    placement = {"scaleUp": True, "gang": True}
    namespace.apply(gpuworkload("more", count=count // 2, replicas=2, node=node, placement=placement))

    def both_seen() -> list[JsonObject]:
        found = seen(fleet, namespace.name)
        assert len(found) == 2, [pod["metadata"]["name"] for pod in found]
        return found

    for placeholder in eventually(both_seen, within=READY_SECONDS):
        spec = placeholder["spec"]
        assert placeholder["metadata"]["name"].startswith("more-scale-up-")
        assert spec["containers"][0]["resources"]["limits"][contract.RESOURCE] == str(count // 2)
        assert spec["nodeSelector"] == {"kubernetes.io/hostname": node}
        assert f"{count} in use" in placeholder["status"]["conditions"][-1]["message"]

    namespace.delete("plain", "holder")
    namespace.verify("more", within=FREE_SECONDS + READY_SECONDS)
    eventually(lambda: _no_placeholder(namespace, fleet), within=MARK_SECONDS)


def test_placeholder_goes_with_its_workload(namespace: TestNamespace, fleet: Fleet) -> None:
    node = fleet.nodes[1]
    too_many = len(fleet.gpus[node].uuids) + 1
    namespace.apply(gpuworkload("more", count=too_many, node=node, placement={"scaleUp": True}))

    def one_seen() -> None:
        assert len(seen(fleet, namespace.name)) == 1

    eventually(one_seen, within=READY_SECONDS)
    namespace.delete("more")
    eventually(lambda: _no_placeholder(namespace, fleet), within=MARK_SECONDS)


def test_placeholder_counts_in_a_quota_beside_its_pod(namespace: TestNamespace, fleet: Fleet) -> None:
    """The quota has room for the pod that waits only, and later for its placeholder as well."""
    path = f"/api/v1/namespaces/{namespace.name}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}}
    fleet.api.create(path, quota)

    def used(number: int) -> None:
        assert fleet.api.get(f"{path}/one").get("status", {}).get("used") == {"pods": str(number)}

    eventually(lambda: used(0), within=READY_SECONDS)
    node = fleet.nodes[1]
    too_many = len(fleet.gpus[node].uuids) + 1
    namespace.apply(gpuworkload("more", count=too_many, node=node, placement={"scaleUp": True}))

    def rejected() -> None:
        log = fleet.cluster.kubectl("logs", f"--namespace={NAMESPACE}", fleet.operator_pod()["metadata"]["name"]).stdout
        lines = [line for line in log.splitlines() if "write for cluster-autoscaler failed" in line]
        assert any(namespace.name in line and "exceeded quota: one" in line for line in lines), lines

    eventually(rejected, within=READY_SECONDS, every=1)
    used(1)
    assert namespace.pod("more")["spec"]["schedulingGates"]
    assert not seen(fleet, namespace.name)
    fleet.api.patch(f"{path}/one", {"spec": {"hard": {"pods": "2"}}})

    def one_seen() -> None:
        assert len(seen(fleet, namespace.name)) == 1

    eventually(one_seen, within=READY_SECONDS + QUOTA_RETRY_SECONDS)
    eventually(lambda: used(2), within=READY_SECONDS)
    namespace.delete("more")


def test_node_is_kept_until_its_pod_is_bound(namespace: TestNamespace, fleet: Fleet) -> None:
    """No scheduler binds the pods. The other node has the annotation of an administrator, which stays."""
    other, node = fleet.nodes
    fleet.api.patch(f"{NODES}/{other}", {"metadata": {"annotations": {KEPT: "true"}}})
    for name, where in (("one", node), ("two", other)):
        namespace.apply(gpuworkload(name, node=where, template=pod_spec(schedulerName=BY_HAND)))

    def both_kept() -> None:
        assert (kept(fleet, node), kept(fleet, other)) == ("true", "true")
        assert len(fleet.assignments(namespace.name)) == 2

    eventually(both_kept, within=READY_SECONDS)
    namespace.delete("one", "two")

    def only_the_other() -> None:
        assert kept(fleet, node) is None

    eventually(only_the_other, within=MARK_SECONDS)
    assert not fleet.assignments(namespace.name)
    assert kept(fleet, other) == "true"
    fleet.api.patch(f"{NODES}/{other}", {"metadata": {"annotations": {KEPT: None}}})


def _no_placeholder(namespace: TestNamespace, fleet: Fleet) -> None:
    found = fleet.api.list(pods(namespace.name), labelSelector="gpufleet.dev/placeholder")
    assert not found, [pod["metadata"]["name"] for pod in found]
