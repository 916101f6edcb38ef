"""A cluster with the chart installed, and accounts that call its apiserver.

Most requests are dry runs: they pass authorization, admission and validation, and do not change the cluster.
"""

from collections.abc import Callable, Iterator

import pytest

from gpufleet_e2e.identities import (
    ASSIGNMENT,
    LEASES,
    NAMESPACE,
    PODS,
    TELEMETRY,
    Accounts,
    Client,
    Response,
    created_accounts,
    lease,
    pod,
    wait_until,
    wait_until_forbidden,
)
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_testbed import Cluster


@pytest.fixture(scope="session")
def installed(fleet: Fleet) -> Cluster:
    """The cluster with the chart installed."""
    return fleet.cluster


@pytest.fixture
def operator_stopped(fleet: Fleet) -> Iterator[None]:
    """Stops the operator during the test, for objects that it would change."""
    fleet.stop_operator()
    yield
    fleet.start_operator()


@pytest.fixture(scope="session")
def admin(installed: Cluster) -> Iterator[Client]:
    """The administrator's client; its namespace exists during the tests."""
    caller = Client(installed.kubeconfig)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    # On a cluster that was used before, the namespace of the last run may still be terminating.
    wait_until(
        lambda: caller.create("/api/v1/namespaces", namespace, dry_run=None).allowed, f"namespace {NAMESPACE}", 60
    )
    yield caller
    caller.delete(f"/api/v1/namespaces/{NAMESPACE}", dry_run=None)
    caller.close()


@pytest.fixture(scope="session")
def accounts(installed: Cluster, admin: Client) -> Iterator[Accounts]:
    """All accounts, once the policies are in force: admission reads them a moment after they are stored."""
    with created_accounts(installed, admin) as found:
        path, user = f"{TELEMETRY}/{found.node}", found.user
        forged = pod("probe", annotations={"gpufleet.dev/assignment": "{}"})
        probes: dict[str, Callable[[], Response]] = {
            "own-node": lambda: found.unbound.patch(path, {"metadata": {"labels": {"a": "b"}}}),
            "own-lease": lambda: found.unbound.create(LEASES, lease("probe")),
            "assignments": lambda: user.patch(path, {"spec": {"assignments": [ASSIGNMENT]}}),
            "pods": lambda: user.create(PODS, forged),
        }
        for name, probe in probes.items():
            wait_until_forbidden(probe, f"policy {name} in force")
        yield found
