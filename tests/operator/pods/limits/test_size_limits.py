"""Nobody makes the passes of others slow with a template or a pod of up to 1.5 MiB."""

from typing import Any

import pytest

from gpufleet_api.names import RESOURCE
from gpufleet_api.workload import GPUWorkload
from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.decide.adoption.pod_check import pod_errors
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.pods.node_affinity import REQUIRED
from gpufleet_operator.pods.validate import validate_template
from gpufleet_testing.operator import make
from gpufleet_testing.operator.synthetic import SyntheticFleet

Json = dict[str, Any]
FLEET = SyntheticFleet(1, 1, 0, make.NOW)
MANY = 5000
"""More than each limit of a list, and with few fields each less than that of the template."""

CONTAINER = {"name": "main", "image": "busybox"}
TERM = {"topologyKey": "zone", "labelSelector": {}}
SPREAD = {**TERM, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
EXPRESSION = {"key": "a", "operator": "Exists"}


def ports(count: int) -> Json:
    return {"containers": [{**CONTAINER, "ports": [{"hostPort": port + 1} for port in range(count)]}]}


def resources(count: int) -> Json:
    limits = {f"example.com/{number}": str(number) for number in range(count)}
    return {"containers": [{**CONTAINER, "resources": {"limits": {**limits, "cpu": "2"}}}]}


def affinity(kind: str, terms: Any) -> Json:
    return {"affinity": {kind: {REQUIRED: terms}}}


def node_terms(terms: list[Json]) -> Json:
    return affinity("nodeAffinity", {"nodeSelectorTerms": terms})


def values(count: int) -> Json:
    return {"matchExpressions": [{"key": "a", "operator": "In", "values": [str(number) for number in range(count)]}]}


PODS = f"affinity.podAffinity.{REQUIRED}"
APART = f"affinity.podAntiAffinity.{REQUIRED}"
NODES = f"affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
EXPRESSIONS = "labelSelector.matchExpressions"
TOO_MANY: dict[str, tuple[Json, str]] = {
    "ports": (ports(MANY), "containers[].ports[].hostPort: Too many: must have at most 128 items"),
    "resources": (resources(MANY), "containers[].resources: Too many: must have at most 128 items"),
    "affinity": (affinity("podAffinity", [TERM] * 33), f"{PODS}: Too many: must have at most 32 items"),
    "apart": (affinity("podAntiAffinity", [TERM] * MANY), f"{APART}: Too many: must have at most 32 items"),
    "spread": (
        {"topologySpreadConstraints": [SPREAD] * 3000},
        "topologySpreadConstraints: Too many: must have at most 32 items",
    ),
    "nodes": (
        node_terms([{"matchExpressions": [EXPRESSION]}] * 3000),
        f"{NODES}: Too many: must have at most 32 items",
    ),
    "tolerations": (
        {"tolerations": [{"key": "a", "operator": "Exists"}] * MANY},
        "tolerations: Too many: must have at most 256 items",
    ),
    "node expressions": (
        node_terms([{"matchExpressions": [EXPRESSION] * MANY}]),
        f"{NODES}[0].matchExpressions: Too many: must have at most 128 items",
    ),
    "node values": (
        node_terms([values(MANY)]),
        f"{NODES}[0].matchExpressions[0].values: Too many: must have at most 4,096 items",
    ),
    "labels": (
        affinity("podAntiAffinity", [{**TERM, "labelSelector": {"matchLabels": {str(n): "" for n in range(MANY)}}}]),
        f"{APART}[0].{EXPRESSIONS}: Too many: must have at most 128 items",
    ),
    "label values": (
        {"topologySpreadConstraints": [{**SPREAD, "labelSelector": values(MANY)}]},
        f"topologySpreadConstraints[0].{EXPRESSIONS}[0].values: Too many: must have at most 4,096 items",
    ),
}
USUAL: dict[str, Json] = {
    "ports": ports(128),
    "resources": resources(128),
    "apart": affinity("podAntiAffinity", [TERM] * 32),
    "values": node_terms([values(4096)]),
    "tolerations": {"tolerations": [{"key": "a", "operator": "Exists"}] * 250},
}


def template_errors(**fields: Any) -> tuple[str, ...]:
    pod = {"restartPolicy": "Always", "containers": [CONTAINER], **fields}
    workload = make.workload(template={"spec": pod})
    return make.checks(workload)[workload.uid].errors


@pytest.mark.parametrize("case", TOO_MANY)
def test_template_with_too_many_rules_is_invalid(case: str) -> None:
    fields, error = TOO_MANY[case]

    assert template_errors(**fields) == (f"spec.template.spec.{error}",)


@pytest.mark.parametrize("case", USUAL)
def test_template_at_the_limit_is_valid(case: str) -> None:
    assert template_errors(**USUAL[case]) == ()


@pytest.mark.parametrize("case", TOO_MANY)
def test_adopted_pod_with_too_many_rules_is_invalid(case: str) -> None:
    fields, error = TOO_MANY[case]
    body = FLEET.pod(0, "")
    pod = decode_pod.pod({**body, "spec": {**body["spec"], **fields}})
    workload = make.workload()

    assert f"spec.{error}" in list(pod_errors(workload, make.spec(workload), pod, Limits()))


def test_pod_on_a_node_is_read_up_to_the_limits() -> None:
    fields = {**ports(MANY), **affinity("podAntiAffinity", [{**TERM, "labelSelector": values(MANY)}] * MANY)}
    body = FLEET.pod(0, "")
    traits = decode.bound_pod({**body, "spec": {**body["spec"], **fields, "nodeName": "node-1"}}).traits

    assert (len(traits.ports), len(traits.anti_affinity)) == (129, 33)
    assert {len(e.values) for term in traits.anti_affinity if term.selector for e in term.selector.expressions} == {
        4097
    }


def test_cpu_after_many_resources_counts() -> None:
    body = FLEET.pod(0, "")
    pod = decode_pod.pod({**body, "spec": {**body["spec"], **resources(MANY)}})

    assert pod.needs.cpu_milli == 2000
    assert RESOURCE not in pod.needs.extended


@pytest.mark.parametrize(
    "volume", [[[]] * 400_000, [{"a": {}}] * 100_000, [1] * 20_000], ids=["lists", "maps", "numbers"]
)
def test_template_with_too_many_values_is_not_decoded(volume: Any) -> None:
    """Comparing and sharing its parts took four seconds for each version of the workload."""
    body = FLEET.workload(0)
    body["spec"]["template"]["spec"]["volumes"] = [{"name": "x", "emptyDir": volume}]
    found = decode.workload(body)

    assert found.model is None
    spec = GPUWorkload.model_validate(body).spec
    assert validate_template(spec, DEFAULTS) == (found.invalid,), "the command line reads no cluster"
    assert found.invalid == "spec.template: Too many: must have at most 20,000 values"


def test_template_with_a_long_text_is_decoded() -> None:
    body = FLEET.workload(0)
    body["spec"]["template"]["spec"]["volumes"] = [{"name": "x" * 1_000_000}]

    assert decode.workload(body).model is not None
