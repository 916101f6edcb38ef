"""An agent may write only the Lease of its own node, and deletes none. With real tokens."""

from gpufleet_e2e.identities import (
    LEASES,
    NODE_LEASES,
    Accounts,
    Client,
    assert_allowed,
    assert_denied,
    lease,
)

OPERATOR_LEASE = "gpufleet-operator"


def test_agent_creates_and_renews_the_lease_of_its_node(accounts: Accounts, admin: Client) -> None:
    for caller, node in ((accounts.agent, accounts.node), (accounts.other_agent, accounts.other_node)):
        name = f"gpufleet-agent.{node}"
        # A patch needs the Lease, which an agent that has just started has not written yet.
        assert_allowed(admin.apply(f"{LEASES}/{name}", lease(name), manager="e2e", dry_run=None))
        assert_allowed(caller.apply(f"{LEASES}/{name}", lease(name), manager="gpufleet-agent"))
        assert_allowed(caller.patch(f"{LEASES}/{name}", {"spec": {"holderIdentity": "agent"}}))


def test_agent_cannot_write_another_lease(accounts: Accounts) -> None:
    for name in (f"gpufleet-agent.{accounts.other_node}", OPERATOR_LEASE, accounts.node):
        words = f"agent on {accounts.node} may not write Lease gpufleet-system/{name}"
        assert_denied(accounts.agent.apply(f"{LEASES}/{name}", lease(name), manager="gpufleet-agent"), words)
    words = f"agent on {accounts.node} may not write Lease gpufleet-system/{OPERATOR_LEASE}"
    assert_denied(accounts.agent.patch(f"{LEASES}/{OPERATOR_LEASE}", {"spec": {"holderIdentity": "agent"}}), words)


def test_agent_cannot_write_a_lease_of_another_namespace(accounts: Accounts) -> None:
    for name in (f"gpufleet-agent.{accounts.node}", accounts.node):
        words = f"agent on {accounts.node} may not write Lease kube-node-lease/{name}"
        assert_denied(accounts.agent.apply(f"{NODE_LEASES}/{name}", lease(name), manager="gpufleet-agent"), words)


def test_token_without_a_pod_cannot_write_a_lease(accounts: Accounts) -> None:
    name = f"gpufleet-agent.{accounts.node}"
    assert_denied(
        accounts.unbound.apply(f"{LEASES}/{name}", lease(name), manager="gpufleet-agent"),
        f"agent on an unknown node may not write Lease gpufleet-system/{name}",
    )


def test_agent_cannot_delete_a_lease_and_others_may(accounts: Accounts, admin: Client) -> None:
    name = f"gpufleet-agent.{accounts.node}"
    assert_allowed(admin.apply(f"{LEASES}/{name}", lease(name), manager="e2e", dry_run=None))
    for path in (f"{LEASES}/{name}", f"{LEASES}/{OPERATOR_LEASE}", f"{NODE_LEASES}/{accounts.node}"):
        assert_denied(accounts.agent.delete(path), "an agent may not delete Lease")
    assert_denied(accounts.agent.delete(LEASES), "an agent may not delete Lease")
    assert_allowed(admin.delete(f"{LEASES}/{name}"))
