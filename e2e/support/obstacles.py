"""Holds the operator at one exact step of its road, by an admission policy of the tests' own.

`held` refuses to let the gate be taken off pods of one namespace that carry the label `e2e-held`. The reservation has
then been written and the pod has not been released: the operator stands between the two for as long as a test wants.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from support.api import BINDINGS, POLICIES, Answer, Api, pods
from support.awaiting import eventually
from support.manifests import GATE, plain_pod

LABEL = "e2e-held"
HELD = {LABEL: "true"}
"""Put this on the pods to hold."""

WORDS = "held back by an end-to-end test"
SECONDS = 30


@contextmanager
def held(api: Api, namespace: str) -> Iterator[None]:
    """No gate of ours comes off a pod with the label `HELD` in this namespace, until the block ends.

    Policies reach the apiserver's admission a moment after they are written: a pod of our own shows when this one
    works, and when it no longer does.
    """
    name = f"e2e-held-{namespace}"
    probe = plain_pod("held-probe", labels=HELD, schedulingGates=[{"name": GATE}])
    api.create(pods(namespace), probe)
    api.create(POLICIES, _policy(name))
    api.create(BINDINGS, _binding(name, namespace))
    try:
        eventually(lambda: _must(_ungate(api, namespace), refused=True), within=SECONDS)
        yield
    finally:
        api.delete(f"{BINDINGS}/{name}")
        api.delete(f"{POLICIES}/{name}")
        eventually(lambda: _must(_ungate(api, namespace), refused=False), within=SECONDS)
        api.delete(f"{pods(namespace)}/held-probe", grace=0)


def _ungate(api: Api, namespace: str) -> Answer:
    patch = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
    return api.try_patch(f"{pods(namespace)}/held-probe", patch, "json", dry_run=True)


def _must(answer: Answer, *, refused: bool) -> None:
    assert (WORDS in answer.message) == refused, f"the policy is not (yet) {'on' if refused else 'off'}: {answer}"


def _policy(name: str) -> dict[str, object]:
    gates = "spec.?schedulingGates.orValue([]).exists(gate, gate.name == '" + GATE + "')"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}
                ]
            },
            "matchConditions": [
                {"name": "held", "expression": f"object.metadata.?labels[?'{LABEL}'].orValue('') == 'true'"}
            ],
            "validations": [{"expression": f"!oldObject.{gates} || object.{gates}", "message": WORDS}],
        },
    }


def _binding(name: str, namespace: str) -> dict[str, object]:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        },
    }
