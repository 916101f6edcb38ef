"""The chart is upgraded with other names of its resources."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

WHOLE, SHARED = "gpufleet.dev/gpu", "gpufleet.dev/gpu-shared"
NEW_WHOLE, NEW_SHARED = "acme.dev/gpu", "acme.dev/gpu-shared"
ABSENT = "acme.dev/link"
"""A resource that no node has."""


def test_gated_pods_follow_and_running_pods_stay(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a gated pod that requests a resource that is not the operator's any more is replaced.

    A container that runs keeps its devices under the old name, which the kubelet still lists.
    """
    shared = {"count": 1, "mode": "Shared", "memoryMiB": 1000}
    node = fleet.nodes[1]
    namespace.apply(
        gpuworkload("runs", node=node),
        gpuworkload("whole", node="nowhere"),
        gpuworkload("part", node="nowhere", devices=shared),
        gpuworkload("link", template=pod_spec(container(resources={"limits": {ABSENT: "1"}}))),
    )
    (device,) = namespace.devices("runs")
    before = _container(namespace)
    for name, resource in (("whole", WHOLE), ("part", SHARED)):
        namespace.wait_condition(name, "Placed", "False", "NoDevicesAvailable")
        _check_requested(namespace, name, resource)
    try:
        fleet.install(values={"resource": NEW_WHOLE, "sharedResource": NEW_SHARED})
        eventually(lambda: _check_requested(namespace, "whole", NEW_WHOLE), within=20)
        eventually(lambda: _check_requested(namespace, "part", NEW_SHARED), within=20)
        assert f"pod does not request {NEW_WHOLE}: the resource was renamed" in namespace.event(
            "whole", "ResourceRenamed"
        )
        # The explanation names what a node lacks: this resource and, until the kubelets offer it, that of the GPUs.
        message = namespace.wait_condition("link", "Placed", "False", "NoDevicesAvailable")
        print(message)
        assert f"{ABSENT} on the node" in message
        namespace.wait_ready("runs")
        assert _container(namespace) == before, "a pod that runs was replaced"
        namespace.apply(gpuworkload("new", node=node))
        namespace.wait_ready("new")
        _check_requested(namespace, "new", NEW_WHOLE)
        assert namespace.reservation("new")["devices"] != [device]
        namespace.delete("new")
    finally:
        fleet.install()
    eventually(lambda: _check_requested(namespace, "part", SHARED), within=20)
    assert namespace.devices("runs") == (device,)
    assert _container(namespace) == before, "a pod that runs was replaced"


def _container(namespace: TestNamespace) -> tuple[str, str, int]:
    pod = namespace.pod("runs")
    (status,) = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], status["containerID"], status["restartCount"]


def _check_requested(namespace: TestNamespace, name: str, resource: str) -> None:
    pod = namespace.pod(name)
    limits: JsonObject = pod["spec"]["containers"][0]["resources"]["limits"]
    assert list(limits) == [resource], f"the pod of {name} requests {limits}"
    gated = bool(pod["spec"].get("schedulingGates"))
    assert gated is not objects.is_true(namespace.workload(name), "Placed")
