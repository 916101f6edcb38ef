"""An agent may write only its own node's GPUTelemetry, and only the operator reservations. With real tokens."""

import pytest

from gpufleet_e2e.identities import (
    ASSIGNMENT,
    NAMESPACE,
    STATUS,
    TELEMETRY,
    Accounts,
    Client,
    assert_allowed,
    assert_denied,
    telemetry,
)

SPEC_IS_THE_OPERATORS = "spec.assignments may be changed only with the verb assign"
CORDONED_NEEDS_THE_VERB = "spec.cordoned may be changed only with the verb cordon"
CONDITIONS_ARE_THE_OPERATORS = "status.conditions may not be changed by an agent"
CORDONED = {"spec": {"cordoned": [{"uuid": "GPU-1", "reason": "fan"}]}}
FRESH = {
    "type": "Fresh",
    "status": "True",
    "reason": "Fresh",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


class TestOwnNode:
    """An agent writes only its own node's telemetry, and deletes none."""

    def test_agent_creates_and_writes_the_object_of_its_node(self, accounts: Accounts) -> None:
        path = f"{TELEMETRY}/{accounts.node}"
        assert_allowed(accounts.agent.apply(path, telemetry(accounts.node), manager="gpufleet-agent"))
        assert_allowed(
            accounts.agent.apply(f"{path}/status", telemetry(accounts.node, status=STATUS), manager="gpufleet-agent")
        )
        assert_allowed(accounts.other_agent.patch(f"{TELEMETRY}/{accounts.other_node}/status", {"status": STATUS}))

    def test_agent_cannot_write_the_object_of_another_node(self, accounts: Accounts) -> None:
        words = f"agent on {accounts.node} may not write {accounts.other_node}"
        path = f"{TELEMETRY}/{accounts.other_node}"
        assert_denied(accounts.agent.apply(path, telemetry(accounts.other_node), manager="gpufleet-agent"), words)
        assert_denied(accounts.agent.patch(path, {"metadata": {"labels": {"a": "b"}}}), words)
        assert_denied(accounts.agent.patch(f"{path}/status", {"status": STATUS}), words)
        status = telemetry(accounts.other_node, status=STATUS)
        assert_denied(accounts.agent.apply(f"{path}/status", status, manager="gpufleet-agent"), words)
        back = f"agent on {accounts.other_node} may not write {accounts.node}"
        assert_denied(accounts.other_agent.patch(f"{TELEMETRY}/{accounts.node}/status", {"status": STATUS}), back)

    def test_agent_cannot_create_an_object_of_another_name(self, accounts: Accounts) -> None:
        words = f"agent on {accounts.node} may not write made-up"
        assert_denied(accounts.agent.create(TELEMETRY, telemetry("made-up")), words)
        generated = telemetry("ignored", metadata={"generateName": accounts.node})
        assert_denied(
            accounts.agent.create(TELEMETRY, generated), f"agent on {accounts.node} may not write {accounts.node}"
        )

    def test_token_without_a_pod_cannot_write(self, accounts: Accounts) -> None:
        for path in (f"{TELEMETRY}/{accounts.node}", f"{TELEMETRY}/{accounts.node}/status"):
            assert_denied(
                accounts.unbound.patch(path, {"status": STATUS}),
                f"agent on an unknown node may not write {accounts.node}",
            )

    def test_agent_cannot_delete(self, accounts: Accounts) -> None:
        for name in (accounts.node, accounts.other_node):
            assert_denied(accounts.agent.delete(f"{TELEMETRY}/{name}"), f"an agent may not delete GPUTelemetry {name}")
        assert_denied(accounts.agent.delete(TELEMETRY), "an agent may not delete GPUTelemetry")

    def test_others_may_delete(self, accounts: Accounts, admin: Client) -> None:
        assert_allowed(accounts.user.delete(f"{TELEMETRY}/{accounts.node}"))
        assert_allowed(admin.delete(f"{TELEMETRY}/{accounts.node}"))


class TestAssignments:
    """Only the operator writes reservations."""

    def test_agent_and_user_cannot_change_the_spec(self, accounts: Accounts) -> None:
        for caller in (accounts.agent, accounts.user):
            response = caller.patch(f"{TELEMETRY}/{accounts.node}", {"spec": {"assignments": [ASSIGNMENT]}})
            assert_denied(response, SPEC_IS_THE_OPERATORS)

    def test_user_cannot_create_an_object_with_a_spec(self, accounts: Accounts) -> None:
        forged = telemetry("made-up", spec={"assignments": [ASSIGNMENT]})
        assert_denied(accounts.user.create(TELEMETRY, forged), SPEC_IS_THE_OPERATORS)
        assert_denied(accounts.user.apply(f"{TELEMETRY}/made-up", forged, manager="e2e"), SPEC_IS_THE_OPERATORS)
        assert_allowed(accounts.user.create(TELEMETRY, telemetry("made-up")))

    @pytest.mark.usefixtures("operator_stopped")  # it would remove them, because the pod does not exist
    def test_user_cannot_remove_reservations(self, accounts: Accounts, admin: Client) -> None:
        path = f"{TELEMETRY}/e2e-reserved"
        assert_allowed(
            admin.create(TELEMETRY, telemetry("e2e-reserved", spec={"assignments": [ASSIGNMENT]}), dry_run=None)
        )
        assert_denied(accounts.user.patch(path, {"spec": {"assignments": []}}), SPEC_IS_THE_OPERATORS)
        assert_denied(accounts.user.patch(path, {"spec": None}), SPEC_IS_THE_OPERATORS)
        assert_allowed(accounts.user.patch(path, {"metadata": {"labels": {"a": "b"}}}))
        assert_allowed(accounts.user.patch(f"{path}/status", {"status": STATUS, "spec": {"assignments": []}}))
        assert_allowed(admin.delete(path, dry_run=None))

    def test_operator_reserves_by_compare_and_swap(self, accounts: Accounts, admin: Client) -> None:
        path = f"{TELEMETRY}/{accounts.node}"
        meta = admin.get(path)["metadata"]
        swap = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": "/metadata/generation", "value": meta["generation"]},
            {"op": "add", "path": "/spec/assignments", "value": [ASSIGNMENT]},
        ]
        assert_allowed(accounts.operator.patch(path, swap, "json"))
        swap[1]["value"] = meta["generation"] + 1
        assert accounts.operator.patch(path, swap, "json").status == 422


class TestCordoned:
    """Only subjects with the verb cordon take devices out of service; they write no reservation."""

    def test_subject_without_verb_cannot_cordon(self, accounts: Accounts) -> None:
        for caller in (accounts.agent, accounts.user, accounts.operator):
            assert_denied(caller.patch(f"{TELEMETRY}/{accounts.node}", CORDONED), CORDONED_NEEDS_THE_VERB)
        created = accounts.user.create(TELEMETRY, telemetry("made-up", **CORDONED))
        assert_denied(created, CORDONED_NEEDS_THE_VERB)

    def test_role_of_the_chart_may_cordon_and_no_more(self, accounts: Accounts) -> None:
        path = f"{TELEMETRY}/{accounts.node}"
        assert_allowed(accounts.cordoner.patch(path, CORDONED))
        assert_allowed(accounts.cordoner.apply(path, telemetry(accounts.node, **CORDONED), manager="ann"))
        both = {"spec": {**CORDONED["spec"], "assignments": [ASSIGNMENT]}}
        assert_denied(accounts.cordoner.patch(path, both), SPEC_IS_THE_OPERATORS)
        assert accounts.cordoner.delete(path).status == 403


class TestConditions:
    """The conditions are the operator's: an agent cannot call itself fresh."""

    def test_agent_cannot_write_conditions(self, accounts: Accounts) -> None:
        path = f"{TELEMETRY}/{accounts.node}/status"
        forged = {"status": {**STATUS, "conditions": [FRESH]}}
        assert_denied(accounts.agent.patch(path, forged), CONDITIONS_ARE_THE_OPERATORS)
        applied = accounts.agent.apply(path, telemetry(accounts.node, **forged), manager="gpufleet-agent")
        assert_denied(applied, CONDITIONS_ARE_THE_OPERATORS)

    def test_report_of_the_agent_keeps_the_conditions(self, accounts: Accounts) -> None:
        path = f"{TELEMETRY}/{accounts.node}/status"
        before = accounts.operator.get(f"{TELEMETRY}/{accounts.node}")["status"]["conditions"]
        written = accounts.agent.apply(path, telemetry(accounts.node, status=STATUS), manager="gpufleet-agent")
        assert_allowed(written)
        assert [c["type"] for c in written.body["status"]["conditions"]] == [c["type"] for c in before]
        assert {c["type"] for c in before} == {"Fresh", "Healthy"}


@pytest.mark.parametrize(
    ("who", "verb", "resource", "may"),
    [
        ("agent", "watch", "gputelemetries.gpufleet.dev", True),
        ("agent", "get", "nodes", True),
        ("agent", "list", "pods", False),
        ("agent", "create", "events", True),
        ("agent", "delete", "events", False),
        ("agent", "assign", "gputelemetries.gpufleet.dev", False),
        ("agent", "cordon", "gputelemetries.gpufleet.dev", False),
        ("agent", "patch", "nodes./status", False),
        ("agent", "get", "gpuworkloads.gpufleet.dev", False),
        ("agent", "get", "secrets", False),
        ("operator", "assign", "gputelemetries.gpufleet.dev", True),
        ("operator", "cordon", "gputelemetries.gpufleet.dev", False),
        ("operator", "patch", "nodes./status", True),
        ("operator", "create", "pods./eviction", True),
        ("cordoner", "cordon", "gputelemetries.gpufleet.dev", True),
        ("cordoner", "assign", "gputelemetries.gpufleet.dev", False),
        ("operator", "patch", "gpuworkloads.gpufleet.dev/status", True),
        ("operator", "patch", "gpuworkloads.gpufleet.dev", False),
        ("operator", "delete", "gputelemetries.gpufleet.dev", False),
        ("operator", "delete", "pods", True),
        ("operator", "update", "pods", False),
        ("operator", "get", "secrets", False),
        ("operator", "patch", "nodes", False),
    ],
)
def test_permissions_that_the_chart_grants(accounts: Accounts, who: str, verb: str, resource: str, may: bool) -> None:
    name, _, group = resource.partition(".")
    group, _, subresource = group.partition("/")
    attributes = {"verb": verb, "group": group, "resource": name, "subresource": subresource, "namespace": NAMESPACE}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    response = getattr(accounts, who).create(path, review, dry_run=None)
    assert_allowed(response)
    assert response.body["status"].get("allowed", False) is may
