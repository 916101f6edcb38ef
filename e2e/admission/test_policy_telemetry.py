"""Who may write GPUTelemetry: an agent its own node's, the operator alone the reservations. With real tokens."""

import pytest

from gpufleet_e2e.identities import ASSIGNMENT, NAMESPACE, STATUS, TELEMETRY, Caller, Cast, allowed, denied, telemetry

SPEC_IS_THE_OPERATORS = "spec.assignments is written only by who holds the verb assign"


class TestOwnNode:
    """An agent writes the telemetry of its own node, and deletes none."""

    def test_agent_creates_and_writes_the_object_of_its_node(self, cast: Cast) -> None:
        path = f"{TELEMETRY}/{cast.node}"
        allowed(cast.agent.apply(path, telemetry(cast.node), manager="gpufleet-agent"))
        allowed(cast.agent.apply(f"{path}/status", telemetry(cast.node, status=STATUS), manager="gpufleet-agent"))
        allowed(cast.other_agent.patch(f"{TELEMETRY}/{cast.other_node}/status", {"status": STATUS}))

    def test_agent_writes_no_other_nodes_object(self, cast: Cast) -> None:
        words = f"agent on {cast.node} may not write {cast.other_node}"
        path = f"{TELEMETRY}/{cast.other_node}"
        denied(cast.agent.apply(path, telemetry(cast.other_node), manager="gpufleet-agent"), words)
        denied(cast.agent.patch(path, {"metadata": {"labels": {"a": "b"}}}), words)
        denied(cast.agent.patch(f"{path}/status", {"status": STATUS}), words)
        status = telemetry(cast.other_node, status=STATUS)
        denied(cast.agent.apply(f"{path}/status", status, manager="gpufleet-agent"), words)
        back = f"agent on {cast.other_node} may not write {cast.node}"
        denied(cast.other_agent.patch(f"{TELEMETRY}/{cast.node}/status", {"status": STATUS}), back)

    def test_agent_creates_no_object_of_another_name(self, cast: Cast) -> None:
        words = f"agent on {cast.node} may not write made-up"
        denied(cast.agent.create(TELEMETRY, telemetry("made-up")), words)
        generated = telemetry("ignored", metadata={"generateName": cast.node})
        denied(cast.agent.create(TELEMETRY, generated), f"agent on {cast.node} may not write {cast.node}")

    def test_token_without_a_pod_writes_nothing(self, cast: Cast) -> None:
        for path in (f"{TELEMETRY}/{cast.node}", f"{TELEMETRY}/{cast.node}/status"):
            denied(cast.unbound.patch(path, {"status": STATUS}), f"agent on an unknown node may not write {cast.node}")

    def test_agent_deletes_nothing(self, cast: Cast) -> None:
        for name in (cast.node, cast.other_node):
            denied(cast.agent.delete(f"{TELEMETRY}/{name}"), f"an agent may not delete GPUTelemetry {name}")
        denied(cast.agent.delete(TELEMETRY), "an agent may not delete GPUTelemetry")

    def test_others_may_delete(self, cast: Cast, admin: Caller) -> None:
        allowed(cast.user.delete(f"{TELEMETRY}/{cast.node}"))
        allowed(admin.delete(f"{TELEMETRY}/{cast.node}"))


class TestAssignments:
    """Reservations are the operator's."""

    def test_agent_and_user_change_no_spec(self, cast: Cast) -> None:
        for caller in (cast.agent, cast.user):
            answer = caller.patch(f"{TELEMETRY}/{cast.node}", {"spec": {"assignments": [ASSIGNMENT]}})
            denied(answer, SPEC_IS_THE_OPERATORS)

    def test_user_creates_no_object_with_a_spec(self, cast: Cast) -> None:
        forged = telemetry("made-up", spec={"assignments": [ASSIGNMENT]})
        denied(cast.user.create(TELEMETRY, forged), SPEC_IS_THE_OPERATORS)
        denied(cast.user.apply(f"{TELEMETRY}/made-up", forged, manager="e2e"), SPEC_IS_THE_OPERATORS)
        allowed(cast.user.create(TELEMETRY, telemetry("made-up")))

    @pytest.mark.usefixtures("operator_asleep")  # it would take them away itself: there is no such pod
    def test_nobody_takes_reservations_away(self, cast: Cast, admin: Caller) -> None:
        path = f"{TELEMETRY}/e2e-reserved"
        allowed(admin.create(TELEMETRY, telemetry("e2e-reserved", spec={"assignments": [ASSIGNMENT]}), dry_run=None))
        denied(cast.user.patch(path, {"spec": {"assignments": []}}), SPEC_IS_THE_OPERATORS)
        denied(cast.user.patch(path, {"spec": None}), SPEC_IS_THE_OPERATORS)
        allowed(cast.user.patch(path, {"metadata": {"labels": {"a": "b"}}}))
        allowed(cast.user.patch(f"{path}/status", {"status": STATUS, "spec": {"assignments": []}}))
        allowed(admin.delete(path, dry_run=None))

    def test_operator_reserves_by_compare_and_swap(self, cast: Cast, admin: Caller) -> None:
        path = f"{TELEMETRY}/{cast.node}"
        meta = admin.get(path)["metadata"]
        swap = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": "/metadata/generation", "value": meta["generation"]},
            {"op": "add", "path": "/spec/assignments", "value": [ASSIGNMENT]},
        ]
        allowed(cast.operator.patch(path, swap, "json"))
        swap[1]["value"] = meta["generation"] + 1
        assert cast.operator.patch(path, swap, "json").status == 422

    def test_operator_does_not_write_what_agents_say(self, cast: Cast) -> None:
        refused = cast.operator.patch(f"{TELEMETRY}/{cast.node}/status", {"status": STATUS})
        assert refused.status == 403
        assert "cannot patch resource" in refused.message


@pytest.mark.parametrize(
    ("who", "verb", "resource", "may"),
    [
        ("agent", "watch", "gputelemetries.gpufleet.dev", True),
        ("agent", "get", "nodes", True),
        ("agent", "list", "pods", False),
        ("agent", "create", "events", True),
        ("agent", "delete", "events", False),
        ("agent", "assign", "gputelemetries.gpufleet.dev", False),
        ("agent", "get", "gpuworkloads.gpufleet.dev", False),
        ("agent", "get", "secrets", False),
        ("operator", "assign", "gputelemetries.gpufleet.dev", True),
        ("operator", "patch", "gpuworkloads.gpufleet.dev/status", True),
        ("operator", "patch", "gpuworkloads.gpufleet.dev", False),
        ("operator", "delete", "gputelemetries.gpufleet.dev", False),
        ("operator", "delete", "pods", True),
        ("operator", "update", "pods", False),
        ("operator", "get", "secrets", False),
        ("operator", "patch", "nodes", False),
    ],
)
def test_rights_that_the_chart_grants(cast: Cast, who: str, verb: str, resource: str, may: bool) -> None:
    name, _, group = resource.partition(".")
    group, _, subresource = group.partition("/")
    attributes = {"verb": verb, "group": group, "resource": name, "subresource": subresource, "namespace": NAMESPACE}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = getattr(cast, who).create(path, review, dry_run=None)
    allowed(answer)
    assert answer.body["status"].get("allowed", False) is may
