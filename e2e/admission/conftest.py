"""A cluster with the chart installed, and the people who call its apiserver.

Nearly everything here is a dry run: it passes authorization, admission and validation like the real thing, and leaves
the cluster as it was.
"""

from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus

import pytest

from gpufleet_e2e.identities import (
    ASSIGNMENT,
    NAMESPACE,
    PODS,
    TELEMETRY,
    Accounts,
    Client,
    Response,
    created_accounts,
    pod,
    wait_until,
)
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_testbed import Cluster


@pytest.fixture(scope="session")
def installed(fleet: Fleet) -> Cluster:
    """The cluster with the chart on it."""
    return fleet.cluster


@pytest.fixture
def operator_asleep(fleet: Fleet) -> Iterator[None]:
    """No operator while the test lasts, for objects that it would tidy up or write at the same time."""
    fleet.stop_operator()
    yield
    fleet.start_operator()


@pytest.fixture(scope="session")
def admin(installed: Cluster) -> Iterator[Client]:
    """The administrator, in a namespace that lives as long as the tests."""
    caller = Client(installed.kubeconfig)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    # On a cluster that was used before, the namespace of the last run may still be on its way out.
    wait_until(
        lambda: caller.create("/api/v1/namespaces", namespace, dry_run=None).allowed, f"namespace {NAMESPACE}", 60
    )
    yield caller
    caller.delete(f"/api/v1/namespaces/{NAMESPACE}", dry_run=None)
    caller.close()


@pytest.fixture(scope="session")
def accounts(installed: Cluster, admin: Client) -> Iterator[Accounts]:
    """Everyone, once the policies are in force: they reach the apiserver's admission a moment after they are stored."""
    with created_accounts(installed, admin) as everyone:
        path, user = f"{TELEMETRY}/{everyone.node}", everyone.user
        forged = pod("probe", annotations={"gpufleet.dev/assignment": "{}"})
        probes: dict[str, Callable[[], Response]] = {
            "own-node": lambda: everyone.unbound.patch(path, {"metadata": {"labels": {"a": "b"}}}),
            "assignments": lambda: user.patch(path, {"spec": {"assignments": [ASSIGNMENT]}}),
            "pods": lambda: user.create(PODS, forged),
        }
        for name, probe in probes.items():
            wait_until(partial(_refused, probe), f"policy {name} in force")
        yield everyone


def _refused(probe: Callable[[], Response]) -> bool:
    return probe().status == HTTPStatus.FORBIDDEN
