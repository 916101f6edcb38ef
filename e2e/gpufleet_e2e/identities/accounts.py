"""Accounts of the admission tests.

RBAC allows user and agent what the policies reject, so that a rejection comes from a policy.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from gpufleet_e2e.identities.client import Client, JsonObject
from gpufleet_e2e.identities.objects import pod, telemetry
from gpufleet_e2e.identities.paths import NAMESPACE, SYSTEM_NAMESPACE, SYSTEM_PODS, TELEMETRY
from gpufleet_testbed import Cluster

RBAC: Final = "rbac.authorization.k8s.io/v1"

VERBS = ["get", "list", "create", "update", "patch", "delete", "deletecollection"]
TELEMETRY_RULE: JsonObject = {
    "apiGroups": ["gpufleet.dev"],
    "resources": ["gputelemetries", "gputelemetries/status"],
    "verbs": VERBS,
}
LEASE_RULE: JsonObject = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": VERBS}
POD_RULE: JsonObject = {
    "apiGroups": [""],
    "resources": ["pods", "pods/status", "pods/binding", "pods/ephemeralcontainers", "bindings"],
    "verbs": VERBS,
}


@dataclass(frozen=True)
class Accounts:
    """Clients by account. `agent` has a token bound to a pod on `node`, `unbound` one without a pod."""

    node: str
    other_node: str
    agent: Client
    other_agent: Client
    unbound: Client
    operator: Client
    user: Client
    cordoner: Client
    """Bound to the chart's role to take devices out of service."""


@contextmanager
def created_accounts(cluster: Cluster, admin: Client) -> Iterator[Accounts]:
    """Creates all accounts and the telemetry of both nodes; removes them at the end."""
    node, other_node = (one.name for one in cluster.nodes[:2])
    system, account = SYSTEM_NAMESPACE, "gpufleet-agent"
    with ExitStack() as stack:

        def keep(path: str, body: JsonObject) -> JsonObject:
            created = admin.apply(path, body, manager="e2e", dry_run=None)  # an earlier run may have left it
            assert created.allowed, created.message
            stack.callback(admin.delete, path, dry_run=None)
            return created.body

        def caller(namespace: str, account: str, bound: JsonObject | None = None) -> Client:
            created = Client(cluster.kubeconfig, token(admin, namespace, account, bound))
            stack.callback(created.close)
            return created

        for name in ("user", "cordoner"):
            account_object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
            keep(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}", account_object)
        for path, body in (
            *excess_role("e2e-user", (NAMESPACE, "user"), TELEMETRY_RULE, POD_RULE),
            *excess_role("e2e-agent", (system, account), TELEMETRY_RULE, LEASE_RULE),
            binding("e2e-cordoner", "gpufleet-cordon", (NAMESPACE, "cordoner")),
        ):
            keep(path, body)
        on_node = keep(f"{SYSTEM_PODS}/e2e-agent", pod("e2e-agent", account=account, nodeName=node))
        elsewhere = keep(f"{SYSTEM_PODS}/e2e-agent-2", pod("e2e-agent-2", account=account, nodeName=other_node))
        for name in (node, other_node):  # running agents may have created them, so they stay
            created = admin.apply(f"{TELEMETRY}/{name}", telemetry(name), manager="e2e", dry_run=None)
            assert created.allowed, created.message
        yield Accounts(
            node=node,
            other_node=other_node,
            agent=caller(system, account, on_node),
            other_agent=caller(system, account, elsewhere),
            unbound=caller(system, account),
            operator=caller(system, "gpufleet-operator"),
            user=caller(NAMESPACE, "user"),
            cordoner=caller(NAMESPACE, "cordoner"),
        )


def token(admin: Client, namespace: str, account: str, pod: JsonObject | None) -> str:
    """Creates a token of a service account; one bound to a pod names the pod's node."""
    spec: JsonObject = {"expirationSeconds": 3600}
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    response = admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request, dry_run=None)
    assert response.allowed, response.message
    return str(response.body["status"]["token"])


def excess_role(name: str, account: tuple[str, str], *rules: JsonObject) -> list[tuple[str, JsonObject]]:
    """Builds a cluster role and its binding to a service account (namespace, name), with their paths."""
    role = {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}
    return [(f"/apis/{RBAC}/clusterroles/{name}", role), binding(name, name, account)]


def binding(name: str, role: str, account: tuple[str, str]) -> tuple[str, JsonObject]:
    """Builds the binding of a cluster role to a service account (namespace, name), with its path."""
    body = {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}],
    }
    return f"/apis/{RBAC}/clusterrolebindings/{name}", body
