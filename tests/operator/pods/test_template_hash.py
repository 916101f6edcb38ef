"""The hash of a template: what changes it rolls pods."""

from typing import Any

import pytest

from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.pods.build import build
from gpufleet_operator.pods.template_hash import template_hash
from gpufleet_testing.operator import make

CONTAINER = {"name": "main", "image": "llm:1", "env": [{"name": "A", "value": "1"}]}
POD = {"restartPolicy": "Always", "containers": [CONTAINER]}


def hash_of(template: dict[str, Any], **spec: object) -> str:
    return template_hash(WorkloadSpec.model_validate({"template": template, **spec}))


def test_hash_of_a_template_is_the_same_in_every_version() -> None:
    """A new value here would replace the pods of all workloads at an upgrade of gpufleet."""
    assert hash_of({"metadata": {"labels": {"app": "x"}}, "spec": POD}) == "1d7c7b02ca"


def test_order_of_keys_and_other_fields_of_the_spec_do_not_change_the_hash() -> None:
    reordered = {"containers": [dict(reversed(CONTAINER.items()))], "restartPolicy": "Always"}
    changed = {"replicas": 5, "placement": {"strategy": "Pack"}, "requirements": {"minFreeMemoryMiB": 1}}
    assert hash_of({"spec": POD}) == hash_of({"spec": reordered}, **changed)


def test_marks_of_gitops_tools_do_not_change_the_hash() -> None:
    marks = {"argocd.argoproj.io/tracking-id": "a", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    assert hash_of({"metadata": {"annotations": marks}, "spec": POD}) == hash_of({"spec": POD})


def test_settings_of_the_operator_do_not_change_the_hash() -> None:
    workload = make.workload()
    spec = make.spec(workload)
    bodies = [build(workload, spec, 0, "train-0-a", Resources(whole)) for whole in ("gpufleet.dev/gpu", "acme.dev/gpu")]
    hashes = {body["metadata"]["labels"]["gpufleet.dev/template-hash"] for body in bodies}
    assert hashes == {template_hash(spec)}


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {**POD, "containers": [{**CONTAINER, "image": "llm:2"}]}},
        {"spec": {**POD, "containers": [{**CONTAINER, "env": [{"name": "A", "value": "2"}]}]}},
        {"spec": {**POD, "nodeSelector": {"a": "b"}}},
        {"metadata": {"labels": {"app": "y"}}, "spec": POD},
        {"metadata": {"annotations": {"a": "b"}}, "spec": POD},
    ],
    ids=["image", "variable", "node selector", "label", "annotation"],
)
def test_change_of_what_a_pod_is_built_from_changes_the_hash(template: dict[str, Any]) -> None:
    assert hash_of(template) != hash_of({"spec": POD})
