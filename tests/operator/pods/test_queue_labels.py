"""Labels by which Kueue admits the pods of a workload."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

from gpufleet_operator.cache.decode import workload as decode
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.kueue.names import QUEUE_LABEL
from gpufleet_operator.pods import build as podbuild
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import WorkloadSpecFields

GROUP = "kueue.x-k8s.io/pod-group-name"
SIZE = "kueue.x-k8s.io/pod-group-total-count"


def metadata(
    labels: Mapping[str, str], *, template: Mapping[str, str] | None = None, **spec: Unpack[WorkloadSpecFields]
) -> dict[str, Any]:
    """Metadata of the pod of a workload with these labels."""
    given = {"metadata": {"labels": dict(template or {})}, "spec": make.TEMPLATE["spec"]}
    workload = replace(make.workload(template=given, **spec), kueue_labels=labels)
    body = podbuild.build(workload, make.spec(workload), 0, "train-0-x", DEFAULTS)
    found: dict[str, Any] = body["metadata"]
    return found


def test_labels_of_kueue_are_decoded() -> None:
    meta = {"uid": "u", "namespace": "ml", "name": "a", "creationTimestamp": "2026-01-02T03:04:05Z"}
    labels = {QUEUE_LABEL: "team", "kueue.x-k8s.io/priority-class": "high", "app": "x"}

    assert decode({"metadata": {**meta, "labels": labels}}).kueue_labels == {
        QUEUE_LABEL: "team",
        "kueue.x-k8s.io/priority-class": "high",
    }


def test_pod_has_the_queue_of_its_workload() -> None:
    found = metadata({QUEUE_LABEL: "team"})

    assert found["labels"][QUEUE_LABEL] == "team"
    assert GROUP not in found["labels"]


def test_queue_of_the_template_takes_precedence() -> None:
    assert metadata({QUEUE_LABEL: "team"}, template={QUEUE_LABEL: "own"})["labels"][QUEUE_LABEL] == "own"


def test_pods_of_a_gang_are_one_group() -> None:
    found = metadata({QUEUE_LABEL: "team"}, replicas=2, placement={"gang": True})

    assert found["labels"][GROUP] == "train-uid-trai"
    assert found["annotations"] == {SIZE: "2"}


def test_gang_without_a_queue_has_no_group() -> None:
    found = metadata({}, replicas=2, placement={"gang": True})

    assert GROUP not in found["labels"]
    assert not found["annotations"]
