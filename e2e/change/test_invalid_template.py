"""A running workload is edited to a template from which no pod can be created."""

from gpufleet_e2e.support.api import JsonObject, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace


def test_counts_and_suspend_go_on_with_an_invalid_template(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the replicas are assessed without the template; only the creation of pods needs it."""
    namespace.apply(gpuworkload("serve", replicas=2, node=fleet.nodes[1]))
    namespace.verify("serve")
    before = _uids(namespace)
    _edit(namespace, template={"spec": {"nodeName": "nowhere"}})
    message = namespace.wait_condition("serve", "Ready", "False", "InvalidTemplate")
    print(message)
    assert message.startswith("spec.template.spec.nodeName: Forbidden: ")
    assert message.endswith("; 2 of 2 replicas are ready")
    assert _counts(namespace) == ("Running", "2/2", 2, 2, 0)
    assert _uids(namespace) == before

    lost = namespace.pods("serve")[1]["metadata"]["name"]
    fleet.api.delete(f"{pods(namespace.name)}/{lost}")
    eventually(lambda: _check_counts(namespace, ("Running", "1/2", 1, 1, 0)), within=15)
    eventually(lambda: _check_pods(namespace, 1), within=15)
    never(lambda: _check_pods(namespace, 1), for_seconds=2)
    columns = fleet.cluster.kubectl("get", "gpuworkload", "serve", f"--namespace={namespace.name}", "--no-headers")
    assert columns.stdout.split()[1:4] == ["1/2", "Running", "InvalidTemplate"], columns.stdout

    _edit(namespace, suspend=True)
    eventually(lambda: _check_pods(namespace, 0), within=20)
    _edit(namespace, suspend=False, template={"spec": {"nodeName": None}})
    namespace.verify("serve")


def _edit(namespace: TestNamespace, **spec: object) -> None:
    namespace.fleet.api.patch(f"{workloads(namespace.name)}/serve", {"spec": spec})


def _uids(namespace: TestNamespace) -> list[str]:
    return [pod["metadata"]["uid"] for pod in namespace.pods("serve")]


def _counts(namespace: TestNamespace) -> tuple[object, ...]:
    status: JsonObject = namespace.workload("serve")["status"]
    return tuple(status.get(name) for name in ("state", "ready", "replicas", "readyReplicas", "updatedReplicas"))


def _check_counts(namespace: TestNamespace, expected: tuple[object, ...]) -> None:
    assert _counts(namespace) == expected, namespace.describe("serve")


def _check_pods(namespace: TestNamespace, number: int) -> None:
    found = namespace.all_pods("serve")
    assert len(found) == number, f"{len(found)} pods"
