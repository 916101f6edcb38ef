"""Holds the operator at one exact step of its road, by an admission policy of the tests' own.

`held` refuses to let the gate be taken off some pods: their reservation has been written, and for as long as a test
wants they aren't released. `unwritable` refuses reservations on one node while all others can be written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpufleet_e2e.proof.contract import GROUP, RESOURCE, TELEMETRY
from gpufleet_e2e.support.api import BINDINGS, POLICIES, Answer, Api, JsonObject, pods
from gpufleet_e2e.support.api import TELEMETRY as TELEMETRY_PATH
from gpufleet_e2e.support.manifests import GATE, plain_pod
from gpufleet_e2e.support.polling import eventually

LABEL = "e2e-held"
HELD = {LABEL: "true"}
"""Put this on the pods to hold."""

WORDS = "refused by an end-to-end test"
SECONDS = 30


@contextmanager
def held(api: Api, namespace: str) -> Iterator[None]:
    """No gate of ours comes off a pod with the label `HELD` in this namespace, until the block ends."""
    path = f"{pods(namespace)}/held-probe"
    api.create(pods(namespace), plain_pod("held-probe", labels=HELD, schedulingGates=[{"name": GATE}]))
    gated = "spec.?schedulingGates.orValue([]).exists(gate, gate.name == '" + GATE + "')"
    marked = f"object.metadata.?labels[?'{LABEL}'].orValue('') == 'true'"
    spec = _policy(
        resources=("", "v1", "pods"),
        condition=f"{marked} && object.metadata.namespace == '{namespace}'",
        valid=f"!oldObject.{gated} || object.{gated}",
    )
    patch = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    with _in_force(api, f"e2e-held-{namespace}", spec, lambda: api.try_patch(path, patch, "json", dry_run=True)):
        yield
    api.delete(path, grace=0)


@contextmanager
def unwritable(api: Api, node: str, namespace: str) -> Iterator[None]:
    """Nothing can be reserved on this node for pods of this namespace, until the block ends."""
    spec = _policy(
        resources=(GROUP, "*", TELEMETRY),
        condition=f"object.metadata.name == '{node}'",
        valid=f"!object.?spec.assignments.orValue([]).exists(one, one.namespace == '{namespace}')",
    )
    probe = {
        "podUID": "probe",
        "namespace": namespace,
        "pod": "probe",
        "container": "main",
        "workload": "probe",
        "workloadUID": "probe",
        "replica": 0,
        "replicas": 1,
        "resource": RESOURCE,
        "devices": ["GPU-probe"],
        "decidedAt": "2026-01-01T00:00:00Z",
    }
    patch = {"spec": {"assignments": [probe]}}
    path = f"{TELEMETRY_PATH}/{node}"
    with _in_force(api, f"e2e-unwritable-{namespace}", spec, lambda: api.try_patch(path, patch, dry_run=True)):
        yield


@contextmanager
def _in_force(api: Api, name: str, spec: JsonObject, probe: Callable[[], Answer]) -> Iterator[None]:
    """A policy from before the block to its end.

    Policies reach the apiserver's admission a moment after they are written: `probe` tries what this one refuses, and
    so shows when it works and when it no longer does.
    """
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    api.create(POLICIES, {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    api.create(BINDINGS, {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    try:
        eventually(lambda: _must(probe(), refused=True), within=SECONDS)
        yield
    finally:
        api.delete(f"{BINDINGS}/{name}")
        api.delete(f"{POLICIES}/{name}")
        eventually(lambda: _must(probe(), refused=False), within=SECONDS)


def _must(answer: Answer, *, refused: bool) -> None:
    if not answer.allowed and WORDS not in answer.message:
        raise RuntimeError(f"the probe is refused by somebody else: {answer.message}")
    assert answer.allowed != refused, f"the policy is not (yet) {'on' if refused else 'off'}"


def _policy(*, resources: tuple[str, str, str], condition: str, valid: str) -> JsonObject:
    group, version, resource = resources
    rule = {"apiGroups": [group], "apiVersions": [version], "operations": ["UPDATE"], "resources": [resource]}
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "concerned", "expression": condition}],
        "validations": [{"expression": valid, "message": WORDS}],
    }
