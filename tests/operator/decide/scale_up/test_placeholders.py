"""Placeholder pods for workloads that wait only for devices."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Unpack

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.names import RESOURCE
from gpufleet_api.workload_status import Explanation, IneligibleDevices, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.scale_up.placeholders import (
    MAX_OF_GANGS,
    MAX_PER_WORKLOAD,
    MAX_PLACEHOLDERS,
    PlaceholderContext,
    placeholder_writes,
)
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.kueue.names import SCHEDULING_GATE as KUEUE_GATE
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY
from gpufleet_operator.model.scale_up.objects import CreatePlaceholder, Placeholder, PlaceholderWrites
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import WorkloadSpecFields

MESSAGE = "0/2 GPUs are available: 2 in use."
UP = {"scaleUp": True}


def waiting(
    name: str = "train",
    *,
    reasons: Sequence[str] = ("DeviceInUse",),
    seconds: float = 60,
    template: object = make.TEMPLATE,
    **spec: Unpack[WorkloadSpecFields],
) -> Workload:
    """A workload that waits for devices since some seconds; these reasons reject the devices that exist."""
    placed = Condition(
        type="Placed",
        status=ConditionStatus.FALSE,
        reason="NoDevicesAvailable",
        message=MESSAGE,
        observed_generation=1,
        last_transition_time=timestamps.seconds(make.NOW - timedelta(seconds=seconds)),
    )
    counts = [IneligibleDevices(reason=reason, devices=1, nodes=1) for reason in reasons]
    explained = Explanation(
        message=MESSAGE, devices_considered=len(counts), devices_eligible=0, ineligible_devices=counts
    )
    status = WorkloadStatus(conditions=[placed], explanation=explained)
    fields: WorkloadSpecFields = {"placement": UP, **spec}
    return make.workload(name, status=status, template=template, **fields)


def writes(
    *workloads: Workload,
    pods: Sequence[Pod] = (),
    reserved: Sequence[Pod] = (),
    existing: Sequence[Placeholder] = (),
    with_quota: Sequence[Pod] = (),
) -> PlaceholderWrites:
    """The writes for workloads; without `pods`, each has one gated pod."""
    found = pods or [make.pod(workload) for workload in workloads]
    return placeholder_writes(
        PlaceholderContext(
            workloads={workload.uid: workload for workload in workloads},
            pods={pod.uid: pod for pod in found},
            placeholders=existing,
            reserved={pod.uid: {"node-1"} for pod in reserved},
            with_quota={(pod.namespace, pod.uid) for pod in with_quota},
            resources=DEFAULTS,
            policy=DEFAULT_POLICY,
            now=make.NOW,
        )
    )


def exists(create: CreatePlaceholder, *, reported: bool = True, deleting: bool = False) -> Placeholder:
    return Placeholder("uid-p", create.namespace, create.name, "1", "uid-train", reported=reported, deleting=deleting)


def test_placeholder_has_the_requests_and_rules_of_the_pod_and_no_gate() -> None:
    template = {
        "spec": {
            "nodeSelector": {"zone": "a"},
            "serviceAccountName": "secret",
            "containers": [
                {"name": "main", "image": "x", "resources": {"requests": {"cpu": "2"}}, "env": [{"name": "A"}]}
            ],
        }
    }
    requirements = {"nodeSelector": {"model": "h100"}}

    (create,) = writes(waiting(template=template, devices={"count": 4}, requirements=requirements)).creates

    spec = create.body["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {"requests": {"cpu": "2"}, "limits": {RESOURCE: "4"}}
    assert spec["nodeSelector"] == {"zone": "a", "model": "h100"}
    assert [one["key"] for one in spec["tolerations"]] == ["nvidia.com/gpu"]
    assert spec["schedulerName"] == "gpufleet.dev/none"
    assert not {"schedulingGates", "serviceAccountName", "volumes"} & spec.keys()
    assert "env" not in container
    assert create.body["metadata"]["ownerReferences"][0]["uid"] == "uid-train"
    assert "gpufleet.dev/workload" not in create.body["metadata"]["labels"]
    assert create.message == MESSAGE


def test_second_look_writes_nothing() -> None:
    (create,) = writes(waiting()).creates

    assert writes(waiting(), existing=[exists(create)]) == PlaceholderWrites()


def test_placeholder_without_the_condition_gets_it() -> None:
    """The operator died between its creation and the condition."""
    (create,) = writes(waiting()).creates
    placeholder = exists(create, reported=False)

    assert writes(waiting(), existing=[placeholder]).reports == ((placeholder, MESSAGE),)


def test_changed_workload_gets_another_placeholder() -> None:
    (create,) = writes(waiting()).creates
    found = writes(waiting(devices={"count": 8}), existing=[exists(create)])

    assert [one.name for one in found.deletes] == [create.name]
    assert len(found.creates) == 1


def test_each_replica_without_devices_has_one() -> None:
    pods = [make.pod(replica=index) for index in range(3)]

    assert len(writes(waiting(replicas=3), pods=pods, reserved=pods[:1]).creates) == 2


def test_numbers_are_bounded_and_the_oldest_come_first() -> None:
    workloads = [
        replace(waiting(f"w{number}"), created=make.NOW - timedelta(hours=number)) for number in range(MAX_PLACEHOLDERS)
    ]
    pods = [make.pod(workload, replica) for workload in workloads for replica in range(MAX_PER_WORKLOAD + 1)]

    found = writes(*workloads, pods=pods).creates

    assert len(found) == MAX_PLACEHOLDERS
    owners = [one.body["metadata"]["ownerReferences"][0]["name"] for one in found]
    oldest = [f"w{MAX_PLACEHOLDERS - 1 - number}" for number in range(MAX_PLACEHOLDERS // MAX_PER_WORKLOAD)]
    assert sorted(set(owners)) == sorted(oldest)


def test_gang_has_all_of_its_placeholders_or_none() -> None:
    gang, number = {**UP, "gang": True}, MAX_OF_GANGS // 2 + 1
    workloads = [waiting(name, placement=gang, replicas=number) for name in ("a", "b")]
    pods = [make.pod(workload, replica) for workload in workloads for replica in range(number)]

    found = writes(*workloads, pods=pods).creates

    assert [one.body["metadata"]["ownerReferences"][0]["name"] for one in found] == ["a"] * number


NOT_WAITING = {
    "not asked for": waiting(placement={}),
    "a moment ago": waiting(seconds=9),
    "suspended": waiting(suspend=True),
    "a requirement that no new node of this kind meets": waiting(reasons=["ModelMismatch", "InsufficientFreeMemory"]),
    "being deleted": replace(waiting(), deleting=True),
    "status of an older generation": replace(waiting(), generation=2),
    "status without conditions": make.workload(placement=UP, status=WorkloadStatus()),
    "no status": make.workload(placement=UP),
}


@pytest.mark.parametrize("workload", NOT_WAITING.values(), ids=NOT_WAITING)
def test_workload_that_no_new_node_helps_has_none(workload: Workload) -> None:
    (create,) = writes(waiting()).creates

    assert writes(workload, existing=[exists(create)]) == PlaceholderWrites(deletes=(exists(create),))


def test_fleet_without_devices_grows_from_zero() -> None:
    assert len(writes(waiting(reasons=[])).creates) == 1


@pytest.mark.parametrize(
    "pod",
    [make.pod(gates=("example.com/quota", "gpufleet.dev/assignment")), make.pod(deleting=True), make.released_pod()],
    ids=["waits for another gate", "is being deleted", "is released"],
)
def test_pod_that_waits_for_something_else_has_none(pod: Pod) -> None:
    assert not writes(waiting(), pods=[pod]).creates


def test_placeholder_without_a_workload_is_deleted() -> None:
    (create,) = writes(waiting()).creates

    assert len(writes(existing=[exists(create)]).deletes) == 1
    assert not writes(existing=[exists(create, deleting=True)]).deletes


def test_pod_behind_the_gate_of_kueue_gets_a_placeholder_with_quota_only() -> None:
    workload = waiting()
    pod = make.pod(workload, gates=(KUEUE_GATE, "gpufleet.dev/assignment"))

    assert not writes(workload, pods=[pod]).creates
    assert len(writes(workload, pods=[pod], with_quota=[pod]).creates) == 1


def test_pod_with_quota_behind_another_gate_gets_no_placeholder() -> None:
    workload = waiting()
    pod = make.pod(workload, gates=(KUEUE_GATE, "gpufleet.dev/assignment", "example.com/later"))

    assert not writes(workload, pods=[pod], with_quota=[pod]).creates
