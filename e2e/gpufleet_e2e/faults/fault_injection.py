"""Stops the operator at one exact step, by an admission policy that belongs to the test.

`release_blocked` rejects the removal of the gate from some pods: their reservation is written, and they are not
released while the block runs. `reservations_denied` rejects reservations on one node; other nodes can be written.
`statuses_denied` rejects the status of one workload.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpufleet_e2e.proof.contract import GROUP, RESOURCE, TELEMETRY, WORKLOADS
from gpufleet_e2e.support.api import BINDINGS, POLICIES, Api, JsonObject, Response, pods, workloads
from gpufleet_e2e.support.api import TELEMETRY as TELEMETRY_PATH
from gpufleet_e2e.support.manifests import GATE, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually

LABEL = "e2e-release-blocked"
BLOCKED_LABELS = {LABEL: "true"}
"""Labels of the pods to block."""

MESSAGE = "rejected by an end-to-end test"
POLICY_SECONDS = 30


@contextmanager
def release_blocked(api: Api, namespace: str) -> Iterator[None]:
    """Rejects the removal of the gate from pods with `BLOCKED_LABELS` in this namespace, while the block runs."""
    path = f"{pods(namespace)}/release-probe"
    api.create(pods(namespace), plain_pod("release-probe", labels=BLOCKED_LABELS, schedulingGates=[{"name": GATE}]))
    gated = "spec.?schedulingGates.orValue([]).exists(gate, gate.name == '" + GATE + "')"
    marked = f"object.metadata.?labels[?'{LABEL}'].orValue('') == 'true'"
    spec = _policy(
        resources=("", "v1", "pods"),
        condition=f"{marked} && object.metadata.namespace == '{namespace}'",
        valid=f"!oldObject.{gated} || object.{gated}",
    )
    patch = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    with _in_force(api, f"e2e-release-{namespace}", spec, lambda: api.try_patch(path, patch, "json", dry_run=True)):
        yield
    api.delete(path, grace=0)


@contextmanager
def reservations_denied(api: Api, node: str, namespace: str) -> Iterator[None]:
    """Rejects reservations on this node for pods of this namespace, while the block runs."""
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
    with _in_force(api, f"e2e-reservations-{namespace}", spec, lambda: api.try_patch(path, patch, dry_run=True)):
        yield


@contextmanager
def statuses_denied(api: Api, namespace: str, name: str) -> Iterator[None]:
    """Rejects statuses of the workload of this name in this namespace, and of a probe, while the block runs."""
    probe = f"{name}-probe"
    api.create(workloads(namespace), gpuworkload(probe, suspend=True))
    spec = _policy(
        resources=(GROUP, "*", f"{WORKLOADS}/status"),
        condition=f"object.metadata.namespace == '{namespace}' && object.metadata.name in ['{name}', '{probe}']",
        valid="false",
    )
    path = f"{workloads(namespace)}/{probe}"
    patch = {"status": {"selector": "probe"}}
    with _in_force(
        api, f"e2e-statuses-{namespace}", spec, lambda: api.try_patch(f"{path}/status", patch, dry_run=True)
    ):
        yield
    api.delete(path)


@contextmanager
def _in_force(api: Api, name: str, spec: JsonObject, probe: Callable[[], Response]) -> Iterator[None]:
    """Keeps a policy in force while the block runs.

    Policies reach the apiserver's admission a moment after they are written: `probe` tries what this one rejects, and
    so shows when it is in force and when it is gone.
    """
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    api.create(POLICIES, {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    api.create(BINDINGS, {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding})
    try:
        eventually(lambda: _check(probe(), rejected=True), within=POLICY_SECONDS)
        yield
    finally:
        api.delete(f"{BINDINGS}/{name}")
        api.delete(f"{POLICIES}/{name}")
        eventually(lambda: _check(probe(), rejected=False), within=POLICY_SECONDS)


def _check(response: Response, *, rejected: bool) -> None:
    if not response.allowed and MESSAGE not in response.message:
        raise RuntimeError(f"the probe is rejected for another reason: {response.message}")
    assert response.allowed != rejected, f"the policy is not yet {'in force' if rejected else 'gone'}"


def _policy(*, resources: tuple[str, str, str], condition: str, valid: str) -> JsonObject:
    group, version, resource = resources
    rule = {"apiGroups": [group], "apiVersions": [version], "operations": ["UPDATE"], "resources": [resource]}
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "selected", "expression": condition}],
        "validations": [{"expression": valid, "message": MESSAGE}],
    }
