"""Replicas find each other by DNS: host names, the headless Service, and the address of replica 0."""

from functools import partial

import yaml

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NAMESPACES, JsonObject, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import repository_root


def _service(namespace: TestNamespace, name: str) -> JsonObject:
    return namespace.fleet.api.get(f"{NAMESPACES}/{namespace.name}/services/{name}")


def _log(namespace: TestNamespace, pod: JsonObject) -> str:
    text = namespace.fleet.api.text(f"{pods(namespace.name)}/{pod['metadata']['name']}/log")
    assert text, f"{pod['metadata']['name']} has no log yet"
    return text


def test_example_of_two_nodes_meets_at_its_leader(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: replica 0 is found by the name in GPUFLEET_LEADER_ADDRESS before any pod is ready."""
    namespace.apply(yaml.safe_load((repository_root() / "examples" / "multi-node.yaml").read_text(encoding="utf-8")))
    namespace.wait_for("multi-node", lambda found: found["status"].get("succeeded") == 2, within=60)
    found = namespace.all_pods("multi-node")
    assert {pod["spec"]["nodeName"] for pod in found} == set(fleet.nodes)
    for index, pod in enumerate(sorted(found, key=lambda one: str(one["metadata"]["name"]))):
        words = f"replica {index} on multi-node-{index}: 2 of 2 replicas joined\n"
        assert eventually(partial(_log, namespace, pod), within=30).endswith(words)


def test_service_is_restored_and_goes_with_its_workload(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a missing Service is created again, and the garbage collector deletes it before its owner."""
    namespace.apply(gpuworkload("names"))
    namespace.verify("names")
    pod = namespace.pod("names")
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("names-0", "names")
    labels = pod["metadata"]["labels"]
    assert (labels["app.kubernetes.io/instance"], labels["apps.kubernetes.io/pod-index"]) == ("names", "0")
    (owner,) = pod["metadata"]["ownerReferences"]
    assert owner["blockOwnerDeletion"]
    columns = fleet.cluster.kubectl(
        "get", "gpuw", "names", f"--namespace={namespace.name}", "--no-headers"
    ).stdout.split()
    assert columns[:3] == ["names", "1/1", "Running"]
    assert columns[4:6] == ["1", pod["spec"]["nodeName"]]
    service = _service(namespace, "names")
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    path = f"{NAMESPACES}/{namespace.name}/services/names"
    fleet.api.delete(path)
    again = eventually(partial(_service, namespace, "names"), within=30)
    assert again["metadata"]["uid"] != service["metadata"]["uid"]
    workload = f"{workloads(namespace.name)}/names"
    deleted = fleet.api.call("DELETE", workload, {"propagationPolicy": "Foreground"})
    assert deleted.allowed, deleted.message
    eventually(partial(fleet.api.check_gone, workload), within=20)
    fleet.api.check_gone(path)
    assert not namespace.all_pods("names"), "blockOwnerDeletion: the workload is gone after its pods"


def test_service_of_another_owner_is_kept_and_named_in_degraded(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: creation fails on the name; the pods run, Degraded quotes the conflict until the name is free."""
    path = f"{NAMESPACES}/{namespace.name}/services"
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}}
    fleet.api.create(path, foreign)
    before = _service(namespace, "taken")
    namespace.apply(gpuworkload("taken"))
    message = namespace.wait_condition("taken", "Degraded", "True", "ServiceCreateFailed")
    assert message == (
        "cannot write Service taken: Service taken already exists with another owner; pods may have no DNS names"
    )
    namespace.verify("taken")
    assert _service(namespace, "taken") == before
    fleet.api.delete(f"{path}/taken")
    namespace.wait_condition("taken", "Degraded", "False", "AsExpected", within=30)
    assert _service(namespace, "taken")["metadata"]["ownerReferences"][0]["kind"] == "GPUWorkload"


def test_names_are_converted_to_dns_labels_or_disabled(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a Service needs a DNS-1035 label; a similar one with a hash resolves. Without names nothing is set."""
    ask = 'until nslookup "$GPUFLEET_LEADER_ADDRESS.cluster.local" | grep -A1 ^Name:; do sleep 1; done; exec sleep 999'
    namespace.apply(
        gpuworkload("v3.1", template=pod_spec(container(command=("sh", "-c", ask)))),
        gpuworkload("plain", network={"enableDNSHostnames": False}),
    )
    namespace.wait_ready("v3.1", "plain")
    pod, plain = namespace.pod("v3.1"), namespace.pod("plain")
    subdomain = pod["spec"]["subdomain"]
    assert subdomain.startswith("v3-1-")
    answer = eventually(partial(_log, namespace, pod), within=20)
    assert f"Name:\t{subdomain}-0.{subdomain}.{namespace.name}.svc.cluster.local" in answer
    assert eventually(lambda: namespace.pod("v3.1")["status"]["podIP"], within=30) in answer
    assert not {"hostname", "subdomain"} & plain["spec"].keys()
    assert fleet.api.find(f"{NAMESPACES}/{namespace.name}/services/plain") is None
    assert objects.is_true(namespace.workload("plain"), "Allocated")
