"""Only the operator may write the annotation and remove the gate of pods. With real tokens."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.identities import (
    NAMESPACE,
    PODS,
    SYSTEM_NAMESPACE,
    SYSTEM_PODS,
    Accounts,
    Client,
    JsonObject,
    assert_allowed,
    assert_denied,
    pod,
    wait_until,
)
from gpufleet_testbed import Cluster, repository_root

CHART = str(repository_root() / "charts" / "gpufleet")

GATE = ANNOTATION = "gpufleet.dev/assignment"
WAITING_FOR = "gpufleet.dev/waiting-for"
RESOURCE = "gpufleet.dev/gpu"
SHARED_RESOURCE = "gpufleet.dev/gpu-shared"

ANNOTATION_IS_THE_OPERATORS = (
    "annotations gpufleet.dev/assignment, gpufleet.dev/waiting-for and gpufleet.dev/replaced may be changed only with"
)
GATE_IS_THE_OPERATORS = "scheduling gate gpufleet.dev/assignment may be removed only with the verb assign"

GATED: JsonObject = {"schedulingGates": [{"name": GATE}, {"name": "example.com/other"}]}


def requesting(part: str = "containers") -> JsonObject:
    container = {"name": "requesting", "image": "localhost/busybox:1", "resources": {"limits": {RESOURCE: "1"}}}
    return {part: [container]}


@pytest.fixture(scope="module")
def waiting(accounts: Accounts, admin: Client) -> Iterator[str]:
    """Creates a gated pod as the user; another gate keeps it from being scheduled."""
    assert_allowed(accounts.user.create(PODS, pod("waiting", **GATED), dry_run=None))
    yield f"{PODS}/waiting"
    assert_allowed(admin.delete(f"{PODS}/waiting", dry_run=None))


@pytest.fixture(scope="module")
def assigned(accounts: Accounts, admin: Client) -> Iterator[str]:
    """Creates a gated pod with the operator's annotation."""
    assert_allowed(accounts.user.create(PODS, pod("assigned", **GATED), dry_run=None))
    path = f"{PODS}/assigned"
    assert_allowed(accounts.operator.patch(path, {"metadata": {"annotations": {ANNOTATION: "{}"}}}, dry_run=None))
    yield path
    assert_allowed(admin.delete(path, dry_run=None))


class TestPods:
    """Only annotation and gate belong to the operator; all other fields are free."""

    def test_anyone_creates_gated_and_plain_pods(self, accounts: Accounts) -> None:
        assert_allowed(accounts.user.create(PODS, pod("gated", **GATED)))
        assert_allowed(accounts.user.create(PODS, pod("plain", annotations={"example.com/a": "b"})))

    def test_annotation_is_not_forged_at_creation(self, accounts: Accounts) -> None:
        for spec in (GATED, {}):
            for name in (ANNOTATION, WAITING_FOR):
                forged = pod("forged", annotations={name: "{}"}, **spec)
                assert_denied(accounts.user.create(PODS, forged), ANNOTATION_IS_THE_OPERATORS)

    def test_annotation_is_not_forged_later(self, accounts: Accounts, waiting: str) -> None:
        for name in (ANNOTATION, WAITING_FOR):
            forged = {"metadata": {"annotations": {name: "{}"}}}
            assert_denied(accounts.user.patch(waiting, forged), ANNOTATION_IS_THE_OPERATORS)
            assert_denied(accounts.user.patch(f"{waiting}/status", forged), ANNOTATION_IS_THE_OPERATORS)
            assert_allowed(accounts.operator.patch(waiting, forged))

    @pytest.mark.parametrize("value", ["forged", None])
    def test_annotation_is_neither_changed_nor_removed(
        self, accounts: Accounts, assigned: str, value: str | None
    ) -> None:
        changed = {"metadata": {"annotations": {ANNOTATION: value}}}
        assert_denied(accounts.user.patch(assigned, changed), ANNOTATION_IS_THE_OPERATORS)
        assert_allowed(accounts.operator.patch(assigned, changed))

    def test_annotation_is_not_set_by_a_binding(self, accounts: Accounts) -> None:
        body = {"metadata": {"name": "waiting"}, "target": {"kind": "Node", "name": accounts.node}}
        forged = {**body, "metadata": {"name": "waiting", "annotations": {ANNOTATION: "{}"}}}
        for path in (f"{PODS}/waiting/binding", f"/api/v1/namespaces/{NAMESPACE}/bindings"):
            assert_denied(accounts.user.create(path, forged), ANNOTATION_IS_THE_OPERATORS)

    def test_only_the_operator_removes_the_gate(self, accounts: Accounts, waiting: str) -> None:
        released = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
        assert_denied(accounts.user.patch(waiting, released, "json"), GATE_IS_THE_OPERATORS)
        assert_denied(accounts.user.patch(waiting, {"spec": {"schedulingGates": None}}), GATE_IS_THE_OPERATORS)
        assert_allowed(accounts.operator.patch(waiting, released, "json"))

    def test_operator_releases_pins_and_annotates_in_one_patch(self, accounts: Accounts, waiting: str) -> None:
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [accounts.node]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        patch = [
            {"op": "test", "path": "/spec/schedulingGates/0/name", "value": GATE},
            {"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": required}},
            {"op": "add", "path": "/metadata/annotations", "value": {ANNOTATION: "{}"}},
            {"op": "remove", "path": "/spec/schedulingGates/0"},
        ]
        assert_allowed(accounts.operator.patch(waiting, patch, "json"))

    def test_everything_else_passes(self, accounts: Accounts, waiting: str, assigned: str) -> None:
        other_gate_off = [{"op": "remove", "path": "/spec/schedulingGates/1"}]
        for path in (waiting, assigned):
            assert_allowed(accounts.user.patch(path, other_gate_off, "json"))
            assert_allowed(accounts.user.patch(path, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}))
            condition = {"type": "example.com/Seen", "status": "True"}
            assert_allowed(accounts.user.patch(f"{path}/status", {"status": {"conditions": [condition]}}, "strategic"))
            shell = {"name": "shell", "image": "localhost/busybox:1"}
            extra = {"spec": {"ephemeralContainers": [shell]}}
            assert_allowed(accounts.user.patch(f"{path}/ephemeralcontainers", extra, "strategic"))
            assert_allowed(accounts.user.delete(path))


@pytest.fixture(scope="class")
def gate_required(installed: Cluster, accounts: Accounts) -> Iterator[None]:
    """Sets policy.requireGate for the tests of the class."""
    chart = ("upgrade", "gpufleet", CHART, f"--namespace={SYSTEM_NAMESPACE}", "--reuse-values")
    installed.helm(*chart, "--set=policy.requireGate=true", f"--set=policy.exemptNamespaces={{{SYSTEM_NAMESPACE}}}")
    asking = pod("probe", **requesting())
    wait_until(lambda: accounts.user.create(PODS, asking).status == 403, "policy require-gate in force")
    yield
    installed.helm(*chart, "--set=policy.requireGate=false", "--set=policy.exemptNamespaces={kube-system}")
    wait_until(lambda: accounts.user.create(PODS, asking).allowed, "policy require-gate gone")


@pytest.mark.usefixtures("gate_required")
class TestRequireGate:
    """The optional policy: no devices without the gate."""

    @pytest.mark.parametrize("part", ["containers", "initContainers"])
    def test_pod_that_requests_devices_needs_the_gate(self, accounts: Accounts, part: str) -> None:
        asking = requesting(part)
        words = f"pods that request {RESOURCE} or {SHARED_RESOURCE} require the scheduling gate"
        assert_denied(accounts.user.create(PODS, pod("bare", **asking)), words)
        assert_allowed(accounts.user.create(PODS, pod("gated", **{**asking, **GATED})))

    def test_other_pods_and_exempt_namespaces_pass(self, accounts: Accounts, admin: Client) -> None:
        assert_allowed(accounts.user.create(PODS, pod("plain")))
        assert_allowed(admin.create(SYSTEM_PODS, pod("exempt", account="gpufleet-agent", **requesting())))
        assert_denied(admin.create(PODS, pod("admin", **requesting())), "create a GPUWorkload instead")
