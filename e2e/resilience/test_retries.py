"""Workloads that cannot run: they say why, keep no devices, and make few pods and events."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

from gpufleet_e2e.faults.other_plugin import other_plugin
from gpufleet_e2e.proof import objects
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_e2e.support.api import NODES, events, pods, workloads
from gpufleet_e2e.support.fleet import OPERATOR, READY_SECONDS, Fleet
from gpufleet_e2e.support.install import BY_HAND, SCHEDULING_TIMEOUT_SECONDS
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

OTHER = "acme.dev/gpu"
"""Not in the list of other vendors' resources that templates may not name."""
PAUSE_FLAG = "--max-retry-pause-seconds"
SHORT_PAUSE_SECONDS = 10
WATCH_SECONDS = 40
MAX_PODS = 3
MAX_EVENTS = 10
LABEL = "gpufleet.dev/e2e"
"""Nothing selects nodes by it."""
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
    them. No rejection names the node label that changes meanwhile, and the counts are read back after a restart.
    """
    node = fleet.nodes[0]
    others = fleet.gpus[node].uuids[-2:]
    double = pod_spec(container(resources={"limits": {OTHER: "2"}}))
    silence = f"no scheduler has looked at the pod for {SCHEDULING_TIMEOUT_SECONDS} s"
    expected = {
        "claim-1": 'persistentvolumeclaim "absent" not found',
        "claim-2": "unbound immediate PersistentVolumeClaims",
        "sysctl-1": "SysctlForbidden",
        "sysctl-2": "SysctlForbidden",
        "silent": f'{silence}: is there one called "{BY_HAND}"?',
        "double": "PodResources reports",
    }
    with other_plugin(fleet, node, OTHER, others), _changing_label(fleet, node) as change:
        namespace.apply(
            gpuworkload("claim-1", template=_claim("absent")),
            gpuworkload("claim-2", template=_claim(_unbound_claim(namespace))),
            gpuworkload("sysctl-1", template=_sysctl()),
            gpuworkload("sysctl-2", template=_sysctl()),
            gpuworkload("silent", template=pod_spec(schedulerName=BY_HAND)),
            gpuworkload("double", node=node, requirements={"excludeUUIDs": list(others)}, template=double),
        )
        made = _watch(namespace, change)
        print({name: len(found) for name, found in made.items()})
        assert {name: len(found) for name, found in made.items() if len(found) > MAX_PODS} == {}
        for name, words in expected.items():
            message = namespace.wait_condition(name, "Ready", "False", "PlacementBackOff", within=10)
            print(name, message)
            assert words in message
        eventually(lambda: _keeps_nothing(namespace), within=15)
        fleet.stop_operator()
        fleet.start_operator()
        change()
        never(lambda: _no_pods(namespace), for_seconds=6)
        for name in expected:
            assert namespace.workload(name)["status"]["placements"][0]["rejections"] in (1, MAX_PODS), name
            found = _events_about(namespace, name)
            assert len(found) <= MAX_EVENTS, f"{name}: {found}"
        namespace.delete(*expected)
        eventually(lambda: _no_pods(namespace), within=20)


def test_pods_in_the_time_of_a_pause_are_three_at_most(
    namespace: TestNamespace, fleet: Fleet, local_claim: str, short_pause: float
) -> None:
    """Mechanism: as above, watched for several pauses with a shorter limit, in which each workload is tried again.

    kube-scheduler names node labels for the volume, and a label of the node changes all the time.
    """
    node = fleet.nodes[1]
    namespace.apply(
        gpuworkload("sysctl", template=_sysctl()), gpuworkload("volume", node=node, template=_claim(local_claim))
    )
    with _changing_label(fleet, node) as change:
        never(change, for_seconds=3 * short_pause, every=0.5)
    created = _pods_by_events(namespace, fleet)
    print({name: sorted(f"{at:%M:%S}" for at in found.values()) for name, found in created.items()})
    assert len(created["sysctl"]) > MAX_PODS, "it is not tried again"
    assert len(created["volume"]) > 1, "it is not tried again"
    for name, found in created.items():
        times = sorted(found.values())
        for first, last in zip(times, times[MAX_PODS:], strict=False):
            assert (last - first).total_seconds() >= short_pause - 1, f"{name}: {times}"


def _pods_by_events(namespace: TestNamespace, fleet: Fleet) -> dict[str, dict[str, datetime]]:
    """Returns when each pod got its first event, by workload and uid: a rejected pod may exist for a moment only."""
    found: dict[str, dict[str, datetime]] = defaultdict(dict)
    for event in fleet.api.list(events(namespace.name)):
        about, at = event["involvedObject"], datetime.fromisoformat(event["metadata"]["creationTimestamp"])
        if about["kind"] == "Pod":
            of_workload = found[about["name"].rpartition("-0-")[0]]
            of_workload[about["uid"]] = min(at, of_workload.get(about["uid"], at))
    return found


@pytest.fixture
def short_pause(fleet: Fleet) -> Iterator[float]:
    """A shorter pause after rejections, in seconds."""
    before = _change_pause(fleet, f"{PAUSE_FLAG}={SHORT_PAUSE_SECONDS}")
    yield SHORT_PAUSE_SECONDS
    _change_pause(fleet, before)


def _change_pause(fleet: Fleet, argument: str) -> str:
    """Replaces this argument of the operator and waits until it runs with it; returns the one before."""
    container = fleet.api.get(OPERATOR)["spec"]["template"]["spec"]["containers"][0]
    index = next(i for i, one in enumerate(container["args"]) if one.startswith(PAUSE_FLAG))
    path = f"/spec/template/spec/containers/0/args/{index}"
    fleet.api.patch(OPERATOR, [{"op": "replace", "path": path, "value": argument}], "json")
    eventually(lambda: _operator_runs_with(fleet, argument), within=READY_SECONDS)
    return str(container["args"][index])


def _operator_runs_with(fleet: Fleet, argument: str) -> None:
    pod = fleet.operator_pod()
    assert argument in pod["spec"]["containers"][0]["args"], "the operator is not replaced yet"
    assert objects.is_true(pod, "Ready"), pod["status"]


def _unbound_claim(namespace: TestNamespace) -> str:
    """Creates a claim for which there is neither a volume nor a provisioner."""
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unbound"}, "spec": spec}
    namespace.fleet.api.create(f"/api/v1/namespaces/{namespace.name}/persistentvolumeclaims", claim)
    return "unbound"


@contextmanager
def _changing_label(fleet: Fleet, node: str) -> Iterator[Callable[[], None]]:
    """Yields a function that changes a label of the node."""
    numbers = count()

    def change(value: str | None = None) -> None:
        fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {LABEL: value}}})

    try:
        yield lambda: change(str(next(numbers)))
    finally:
        change()


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

    kube-scheduler rejects the second node, because the volume is only usable on the first, where one member runs. That
    the operator deletes this member is no failure of the application, with `onReplicaFailure: Fail` either.
    """
    namespace.apply(gpuworkload("rest", count=8, node=fleet.nodes[0]))
    namespace.wait_ready("rest")
    placement = {"gang": True, "strategy": "Spread"}
    shape: dict[str, Any] = {"count": 4, "replicas": 2, "placement": placement, "template": _claim(local_claim)}
    policies = {"gang": {}, "fail": {"onReplicaFailure": "Fail"}}
    namespace.apply(*(gpuworkload(name, runPolicy=policy, **shape) for name, policy in policies.items()))
    for name in policies:
        message = namespace.wait_condition(name, "Ready", "False", "PlacementBackOff", within=40)
        print(message)
        assert "PersistentVolume" in message
    eventually(lambda: _keeps_nothing(namespace, besides="rest"), within=20)
    for name in policies:
        eventually(partial(_no_pods, namespace, name), within=20)
        status = namespace.workload(name)["status"]
        assert (status["state"], status["failed"]) == ("Pending", 0), namespace.describe(name)
        assert not objects.is_true(namespace.workload(name), "Failed"), namespace.describe(name)


def _watch(namespace: TestNamespace, change: Callable[[], None]) -> dict[str, set[str]]:
    """Returns the UIDs of the pods of each workload that existed in this time, and checks the messages.

    Args:
        namespace: Of the workloads.
        change: Called every few seconds.
    """
    made: dict[str, set[str]] = defaultdict(set)
    api, looks = namespace.fleet.api, count()

    def look() -> None:
        if next(looks) % 10 == 0:
            change()
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


def _no_pods(namespace: TestNamespace, name: str = "") -> None:
    found = namespace.all_pods(name) if name else namespace.fleet.api.list(pods(namespace.name))
    left = [pod["metadata"]["name"] for pod in found]
    assert not left, f"pods are left: {left}"


def _events_about(namespace: TestNamespace, name: str) -> list[str]:
    found = namespace.fleet.api.list(events(namespace.name))
    return [one["reason"] for one in found if one["involvedObject"]["name"] == name]
