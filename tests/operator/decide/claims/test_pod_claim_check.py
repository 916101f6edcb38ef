"""What is said about a pod of another owner whose claim differs from what its workload expects."""

from typing import Any

import pytest

from gpufleet_operator.decide.adoption.pod_check import pod_errors
from gpufleet_operator.model.claims.resource_claim import ClaimReference
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator import make, owned

CLAIM = "spec.resourceClaims[name=gpufleet]"


def pod(*containers: str, template: str = "gpufleet-train", name: str = "", requests: int = 0) -> Pod:
    reference = ClaimReference(name, containers, template)
    return owned.pod(device_claim=reference, device_requests=owned.requests(requests) if requests else ())


def errors(found: Pod, *, claims: bool = True, **devices: object) -> list[str]:
    workload = owned.workload(devices={"count": 1, **devices})
    return list(pod_errors(workload, make.spec(workload), found, Limits(claims=claims)))


def test_pod_with_the_template_of_its_workload_is_valid() -> None:
    assert errors(pod("main"), count=4) == []
    assert errors(pod("b"), container="b") == []
    both = [{"name": "a", "count": 1}, {"name": "b", "count": 2}]
    assert errors(pod("a", "b"), count=3, containers=both) == []


CASES = {
    "another template": (
        pod("main", template="mine"),
        {},
        f'{CLAIM}.resourceClaimTemplateName: Invalid value: "mine": must be resourceClaimTemplateName: gpufleet-train',
    ),
    "a claim": (pod("main", template="", name="c"), {}, f'{CLAIM}.resourceClaimName: Invalid value: "c": must be'),
    "a limit as well": (pod("main", requests=1), {}, "must be omitted: the pod gets its devices by a claim"),
    "no container": (pod(), {}, f'{CLAIM}: Invalid value: "none": must be used by one app container'),
    "several containers": (pod("a", "b"), {}, f'{CLAIM}: Invalid value: "a, b": must be used by one app container'),
    "another container": (
        pod("a"),
        {"container": "b"},
        "spec.containers[name=b].resources.claims: Required value: must have the name gpufleet: spec.devices of",
    ),
    "one container too many": (
        pod("a", "b"),
        {"container": "b"},
        f'{CLAIM}: Invalid value: "a": must be used only by b: spec.devices of GPUWorkload train',
    ),
}


@pytest.mark.parametrize(("found", "devices", "message"), CASES.values(), ids=CASES)
def test_error_names_field_and_value(found: Pod, devices: dict[str, Any], message: str) -> None:
    assert any(message in error for error in errors(found, **devices)), errors(found, **devices)


def test_claims_are_forbidden_if_the_operator_does_not_create_them() -> None:
    (message,) = errors(pod("main"), claims=False)
    assert message == f"{CLAIM}: Forbidden: no node has transport DRA: the operator's --transport is DevicePlugin"
