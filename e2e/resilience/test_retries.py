"""Workloads that cannot run: they say why, keep no devices, and make few pods and events."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from gpufleet_e2e.faults.other_plugin import other_plugin
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_e2e.support.api import events, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND, SCHEDULING_TIMEOUT_SECONDS
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

OTHER = "acme.dev/gpu"
"""Not in the list of other vendors' resources that templates may not name."""
WATCH_SECONDS = 40
MAX_PODS = 3
MAX_EVENTS = 10
VOLUMES = "/api/v1/persistentvolumes"


def _claim(name: str) -> dict[str, Any]:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    return pod_spec(container(volumeMounts=[{"name": "data", "mountPath": "/data"}]), volumes=[volume])


def _sysctl() -> dict[str, Any]:
    """The kubelet rejects it on every node."""
    return pod_spec(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]})


def test_six_workloads_that_cannot_run_create_few_pods(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: consecutive rejections pause the retries of a replica, also after a confirmation was taken back.

    The other plugin's devices show up only in the second source of the confirmation. Six such workloads together make
    fewer than 20 pods in ten minutes; here the first 40 seconds are watched, in which the old backoff made most of
    them.
    """
    node = fleet.nodes[0]
    others = fleet.gpus[node].uuids[-2:]
    double = pod_spec(container(resources={"limits": {OTHER: "2"}}))
    silence = f"no scheduler has looked at the pod for {SCHEDULING_TIMEOUT_SECONDS} s"
    expected = {
        "claim-1": 'persistentvolumeclaim "absent" not found',
        "claim-2": 'persistentvolumeclaim "absent" not found',
        "sysctl-1": "SysctlForbidden",
        "sysctl-2": "SysctlForbidden",
        "silent": f'{silence}: is there one called "{BY_HAND}"?',
        "double": "PodResources reports",
    }
    with other_plugin(fleet, node, OTHER, others):
        namespace.apply(
            gpuworkload("claim-1", template=_claim("absent")),
            gpuworkload("claim-2", template=_claim("absent")),
            gpuworkload("sysctl-1", template=_sysctl()),
            gpuworkload("sysctl-2", template=_sysctl()),
            gpuworkload("silent", template=pod_spec(schedulerName=BY_HAND)),
            gpuworkload("double", node=node, requirements={"excludeUUIDs": list(others)}, template=double),
        )
        made = _watch(namespace)
        print({name: len(found) for name, found in made.items()})
        assert {name: len(found) for name, found in made.items() if len(found) > MAX_PODS} == {}
        for name, words in expected.items():
            message = namespace.wait_condition(name, "Ready", "False", "PlacementBackOff", within=10)
            print(name, message)
            assert words in message
        eventually(lambda: _keeps_nothing(namespace), within=15)
        for name in expected:
            found = _events_about(namespace, name)
            assert len(found) <= MAX_EVENTS, f"{name}: {found}"
        namespace.delete(*expected)
        eventually(lambda: _no_pods(namespace), within=20)


@pytest.fixture
def local_claim(namespace: TestNamespace, fleet: Fleet) -> Iterator[str]:
    """A claim whose volume can only be used on the first node."""
    match = {"key": "kubernetes.io/hostname", "operator": "In", "values": [fleet.nodes[0]]}
    shape = {"accessModes": ["ReadWriteMany"], "storageClassName": "local-only"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace.name},
        "spec": {
            **shape,
            "capacity": {"storage": "1Mi"},
            "hostPath": {"path": "/tmp"},  # noqa: S108 - inside the node, only mounted
            "claimRef": {"namespace": namespace.name, "name": "local"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [match]}]}},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "local"},
        "spec": {**shape, "volumeName": namespace.name, "resources": {"requests": {"storage": "1Mi"}}},
    }
    fleet.api.create(VOLUMES, volume)
    fleet.api.create(f"/api/v1/namespaces/{namespace.name}/persistentvolumeclaims", claim)
    yield "local"
    fleet.api.delete(f"{VOLUMES}/{namespace.name}")


def test_gang_with_a_rejected_member_releases_all_devices(
    namespace: TestNamespace, fleet: Fleet, local_claim: str
) -> None:
    """Mechanism: consecutive rejections pause the retries of the whole gang, and its other members are removed.

    kube-scheduler rejects the second node, because the volume is only usable on the first, where one member runs.
    """
    namespace.apply(gpuworkload("rest", count=8, node=fleet.nodes[0]))
    namespace.wait_ready("rest")
    placement = {"gang": True, "strategy": "Spread"}
    namespace.apply(gpuworkload("gang", count=8, replicas=2, placement=placement, template=_claim(local_claim)))
    message = namespace.wait_condition("gang", "Ready", "False", "PlacementBackOff", within=40)
    print(message)
    assert "PersistentVolume" in message
    eventually(lambda: _keeps_nothing(namespace, besides="rest"), within=20)
    assert namespace.all_pods("gang") == []


def _watch(namespace: TestNamespace) -> dict[str, set[str]]:
    """Returns the UIDs of the pods of each workload that existed in this time, and checks the messages."""
    made: dict[str, set[str]] = defaultdict(set)
    api = namespace.fleet.api

    def look() -> None:
        for pod in api.list(pods(namespace.name)):
            made[pod["metadata"]["labels"][WORKLOAD_LABEL]].add(pod["metadata"]["uid"])
        for workload in api.list(workloads(namespace.name)):
            for condition in workload.get("status", {}).get("conditions", []):
                assert condition["message"], f"{workload['metadata']['name']}: {condition} has no message"

    never(look, for_seconds=WATCH_SECONDS, every=0.5)
    return made


def _keeps_nothing(namespace: TestNamespace, besides: str = "") -> None:
    left = [one for one in namespace.fleet.assignments(namespace.name).values() if one["workload"] != besides]
    assert not left, f"devices are kept: {left}"


def _no_pods(namespace: TestNamespace) -> None:
    left = [pod["metadata"]["name"] for pod in namespace.fleet.api.list(pods(namespace.name))]
    assert not left, f"pods are left: {left}"


def _events_about(namespace: TestNamespace, name: str) -> list[str]:
    found = namespace.fleet.api.list(events(namespace.name))
    return [one["reason"] for one in found if one["involvedObject"]["name"] == name]
