"""Everybody who calls in the admission tests.

The user and the agent may do by RBAC what the policies refuse, so that what refuses them is a policy.
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
POD_RULE: JsonObject = {
    "apiGroups": [""],
    "resources": ["pods", "pods/status", "pods/binding", "pods/ephemeralcontainers", "bindings"],
    "verbs": VERBS,
}


@dataclass(frozen=True)
class Accounts:
    """Who calls. `agent` is bound to a pod on `node`, `unbound` is the same account by a token without a pod."""

    node: str
    other_node: str
    agent: Client
    other_agent: Client
    unbound: Client
    operator: Client
    user: Client


@contextmanager
def created_accounts(cluster: Cluster, admin: Client) -> Iterator[Accounts]:
    """Everyone, with real tokens, and with telemetry of both nodes to write; removed again at the end."""
    node, other_node = (one.name for one in cluster.nodes[:2])
    system, account = SYSTEM_NAMESPACE, "gpufleet-agent"
    with ExitStack() as stack:

        def keep(path: str, body: JsonObject) -> JsonObject:
            made = admin.apply(path, body, manager="e2e", dry_run=None)  # an earlier run may have left it behind
            assert made.allowed, made.message
            stack.callback(admin.delete, path, dry_run=None)
            return made.body

        def caller(namespace: str, account: str, bound: JsonObject | None = None) -> Client:
            made = Client(cluster.kubeconfig, token(admin, namespace, account, bound))
            stack.callback(made.close)
            return made

        user = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "user"}}
        keep(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/user", user)
        for path, body in (
            *excess_role("e2e-user", (NAMESPACE, "user"), TELEMETRY_RULE, POD_RULE),
            *excess_role("e2e-agent", (system, account), TELEMETRY_RULE),
        ):
            keep(path, body)
        on_node = keep(f"{SYSTEM_PODS}/e2e-agent", pod("e2e-agent", account=account, nodeName=node))
        elsewhere = keep(f"{SYSTEM_PODS}/e2e-agent-2", pod("e2e-agent-2", account=account, nodeName=other_node))
        for name in (node, other_node):  # where agents run, they have made them already; so they stay
            made = admin.apply(f"{TELEMETRY}/{name}", telemetry(name), manager="e2e", dry_run=None)
            assert made.allowed, made.message
        yield Accounts(
            node=node,
            other_node=other_node,
            agent=caller(system, account, on_node),
            other_agent=caller(system, account, elsewhere),
            unbound=caller(system, account),
            operator=caller(system, "gpufleet-operator"),
            user=caller(NAMESPACE, "user"),
        )


def token(admin: Client, namespace: str, account: str, pod: JsonObject | None) -> str:
    """A token of a service account, bound to a pod if one is given: then it names the pod's node."""
    spec: JsonObject = {"expirationSeconds": 3600}
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request, dry_run=None)
    assert answer.allowed, answer.message
    return str(answer.body["status"]["token"])


def excess_role(name: str, account: tuple[str, str], *rules: JsonObject) -> list[tuple[str, JsonObject]]:
    """A role with these rules for a service account (namespace, name): where to create it, and what."""
    path = f"/apis/{RBAC}"
    role = {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}
    binding = {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}],
    }
    return [(f"{path}/clusterroles/{name}", role), (f"{path}/clusterrolebindings/{name}", binding)]
