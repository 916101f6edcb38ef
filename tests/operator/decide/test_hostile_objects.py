"""Objects that a user may write: any JSON in any free-form field ends no pass, and others are placed in the same one.

Objects of the user and the good workload are in different namespaces. Exceptions that are confined to the user's
workload are faults as well: each has a message that names a field, not one of Python.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import (
    API_VERSION,
    ASSIGNMENT_ANNOTATION,
    ATTEMPT_LABEL,
    POD_CLAIM,
    REPLICA_LABEL,
    RESOURCE,
    SCHEDULING_GATE,
    WAITING_FOR_ANNOTATION,
    WORKLOAD_KIND,
    WORKLOAD_LABEL,
)
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.kube.patches import as_json
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.operator import make

Json = dict[str, Any]
USER = "user"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
JOB_LABELS = ("jobset.sigs.k8s.io/job-global-index", "leaderworkerset.sigs.k8s.io/group-index", "ray.io/node-type")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

TEXTS = ["", "a", "main", "x/y", "a.b/c", "\n", "\0", "\U0001f600", "__proto__", "-1", "9" * 5000, "²", "[" * 5000]
TEXTS += ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1e1000000", "0.000000001n", "(a+)+$", "node-1", USER]
TEXTS += ["Exists", "In", "Gt", "Always", "NoSchedule", "DoNotSchedule", "kubernetes.io/hostname", SCHEDULING_GATE]
NUMBERS = [0, -1, 1, 0.5, 1e308, -0.0, 2**31, 2**63 - 1, -(2**63), 10**20]
KEYS = ["", "a", "x/y", "\n", "__proto__", "name", "key", "operator", "values", "value", "effect", "labels", "spec"]
KEYS += ["annotations", "containers", "initContainers", "resources", "limits", "requests", "claims", "env", "envFrom"]
KEYS += ["ports", "hostPort", "affinity", "nodeAffinity", "podAffinity", "podAntiAffinity", REQUIRED, "matchLabels"]
KEYS += ["nodeSelectorTerms", "matchExpressions", "matchFields", "labelSelector", "topologyKey", "namespaceSelector"]
KEYS += ["topologySpreadConstraints", "maxSkew", "whenUnsatisfiable", "tolerations", "nodeSelector", "restartPolicy"]
KEYS += ["schedulingGates", "terminationGracePeriodSeconds", "priority", "resourceClaims", "overhead", "volumes", "cpu"]

SCALAR = st.sampled_from([None, True, *NUMBERS, *TEXTS])
ANY = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)
MAP = st.dictionaries(st.sampled_from(KEYS), ANY, max_size=5)
STRINGS = st.dictionaries(
    st.sampled_from([*KEYS, JOB_INDEX, *JOB_LABELS, ATTEMPT_LABEL, REPLICA_LABEL, WAITING_FOR_ANNOTATION]),
    st.sampled_from(TEXTS),
    max_size=4,
)


def meta(name: str, **fields: object) -> Json:
    moment = "2026-01-01T00:00:00Z"
    known = {"uid": f"uid-{name}", "name": name, "namespace": USER, "resourceVersion": "7", "generation": 1}
    return {**known, "creationTimestamp": moment, **fields}


def workload(template: object, labels: object = None, status: object = None) -> Json:
    """A workload as the apiserver would store it; its schema checks all but the template."""
    spec = {"replicas": 2, "devices": {"count": 1}, "template": template}
    metadata = meta("hostile", labels=labels or {})
    return {"apiVersion": API_VERSION, "kind": WORKLOAD_KIND, "metadata": metadata, "spec": spec, "status": status}


def usual(spec: Json, **metadata: object) -> Json:
    """A template that is valid apart from these fields."""
    containers = [{"name": "main", "image": "busybox"}]
    return {"metadata": metadata, "spec": {"restartPolicy": "Always", "containers": containers, **spec}}


def pod(spec: Json, labels: Json, annotations: Json, status: Json, *, adopted: bool) -> Json:
    """A pod of the user's workload, or one that is adopted."""
    owner = {"apiVersion": API_VERSION, "kind": WORKLOAD_KIND, "name": "hostile", "controller": True}
    owners = [] if adopted else [{**owner, "uid": "uid-hostile"}]
    labels = {REPLICA_LABEL: "0", **labels, WORKLOAD_LABEL: "adopts" if adopted else "hostile"}
    metadata = meta("p", labels=labels, annotations=annotations, ownerReferences=owners)
    containers = [{"name": "main", "resources": {"limits": {RESOURCE: "1"}}}]
    requested = {"schedulingGates": [{"name": SCHEDULING_GATE}], "containers": containers}
    return {"metadata": metadata, "spec": {**requested, **spec}, "status": status}


def passes(*workloads: Json, pods: tuple[Json, ...] = (), others: tuple[Json, ...] = ()) -> Actions:
    """Returns the second of two passes with these objects. The good workload is placed in each."""
    cache, good = Cache(), make.workload("good")
    cache.workloads.put(good)
    cache.pods.put(make.pod(good))
    for number in (1, 2):
        cache.nodes.put(make.node(f"node-{number}"))
        cache.telemetry.put(make.telemetry(f"node-{number}"))
    for body in workloads:
        cache.workloads.apply(body)
    for body in pods:
        cache.pods.apply(body)
    for body in others:
        cache.other_pods.apply(body)
    state, limits = PassState(), Limits()
    for _ in range(2):
        templates = check_templates(cache.workloads.items, state.templates, limits.resources)
        snapshot = cache.snapshot(now=make.NOW, name_seed="s", templates=templates, state=state, limits=limits)
        actions = decide(snapshot)
        state = actions.state
        assert "good-0-a" in {release.name for release in actions.releases}
        assert not actions.unexpected_errors
        assert not actions.failed_decisions
        assert all(as_json(write.status) for write in actions.statuses)
    assert pods == () or cache.pods.items.keys() >= {body["metadata"]["uid"] for body in pods}, "a pod looks missing"
    return actions


@examples(150)
@given(ANY | MAP.map(usual) | st.builds(usual, MAP, labels=ANY, annotations=ANY), STRINGS, ANY)
def test_any_template_stops_no_other_workload(template: object, labels: Json, status: object) -> None:
    passes(workload(template, labels, status))


@examples(150)
@given(MAP, STRINGS, STRINGS, MAP, st.booleans())
def test_any_pod_is_decoded_and_stops_no_other_workload(
    spec: Json, labels: Json, annotations: Json, status: Json, adopted: bool
) -> None:
    own = workload(usual({}))
    adopting = workload(None)
    adopting["metadata"] = meta("adopts")
    del adopting["spec"]["template"]
    body = pod(spec, labels, annotations, status, adopted=adopted)
    bound = {**body, "spec": {**body["spec"], "nodeName": "node-1"}}

    passes(own, adopting, pods=(body,), others=(bound,))


def hostile_pods() -> Iterator[Any]:
    claim = {"resourceClaims": [{"name": POD_CLAIM, "resourceClaimTemplateName": "x"}]}
    for depth in (500, 200_000):
        yield pytest.param(claim, {ASSIGNMENT_ANNOTATION: "[" * depth}, id=f"assignment of {depth} levels")
    for key in (JOB_INDEX, "apps.kubernetes.io/pod-index", *JOB_LABELS):
        yield pytest.param({}, {key: "1" * 200_000}, id=f"{key} of 200,000 digits")
    for seconds in (2**31, 2**63 - 1):
        yield pytest.param({"terminationGracePeriodSeconds": seconds}, {}, id=f"grace period {seconds}")


@pytest.mark.parametrize(("spec", "annotations"), list(hostile_pods()))
@pytest.mark.parametrize("adopted", [False, True], ids=["own", "adopted"])
def test_pod_with_an_extreme_value_is_decoded(spec: Json, annotations: Json, adopted: bool) -> None:
    """A pod that is not decoded looks missing: the operator would create another one, again and again."""
    own, adopting = workload(usual({})), workload(None)
    adopting["metadata"] = meta("adopts")
    del adopting["spec"]["template"]

    passes(own, adopting, pods=(pod(spec, {}, annotations, {}, adopted=adopted),))
