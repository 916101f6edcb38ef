"""The cluster, the installed chart, and a namespace per test.

`cluster` is a real cluster of two nodes, one for each worker of pytest-xdist. It can run next to the one of `make
cluster` and `make demo`, and ends with the tests, unless it ran before (`python -m gpufleet_testbed up` with this name
and network).
`fleet` is the chart installed on it, with simulated GPUs: 16 in the first node, 8 in the second. `namespace` belongs to
one test; clearing it checks the invariants of every test. A module that uses `transport` runs with each of them.
"""

import re
import secrets
from collections.abc import Generator, Iterator
from functools import partial

import pytest

from gpufleet_e2e.file_order import expected_seconds
from gpufleet_e2e.kubernetes_features import reason_to_skip
from gpufleet_e2e.proof.testbed import collector_for
from gpufleet_e2e.support import diagnostics
from gpufleet_e2e.support.api import Api
from gpufleet_e2e.support.claims import serves_claims
from gpufleet_e2e.support.fleet import READY_SECONDS, Fleet
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_e2e.support.watchdog import Watchdog, holders_by_kubelets
from gpufleet_e2e.worker_cluster import worker_config
from gpufleet_testbed import Cluster, ClusterConfig, cache_dir, up
from gpufleet_testbed.local.processes.lock import Lock, holder

_FLEET = pytest.StashKey[Fleet]()

GPUS = (16, 8)
"""Number of GPUs of each node."""


@pytest.fixture(scope="session")
def cluster(worker_id: str) -> Iterator[Cluster]:
    config = worker_config(0 if worker_id == "master" else int(worker_id.removeprefix("gw")), nodes=len(GPUS))
    # Held by the run, not by the cluster: a cluster that ran before is used by one run at a time.
    path = cache_dir() / f"{config.name}-tests.lock"
    lock = Lock.try_acquire(path)
    if lock is None:
        pytest.exit(f"{holder(path)} runs the end-to-end tests; wait until it ends", returncode=2)
    with up(config) as found:
        yield found
    lock.remove()


@pytest.fixture(scope="session")
def fleet(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    gpus = {node.name: Gpus(node, count) for node, count in zip(cluster.nodes, GPUS, strict=True)}
    api = Api(cluster.kubeconfig)
    with (
        collector_for(cluster) as collector,
        Watchdog(lambda: holders_by_kubelets(collector.holdings()), every_seconds=0.5) as watchdog,
    ):
        found = Fleet(cluster, api, collector, watchdog, gpus)
        found.install()
        found.replace_agents()
        request.session.stash[_FLEET] = found
        yield found
    api.close()


@pytest.fixture(scope="module", params=["DevicePlugin", "DRA"])
def transport(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """The transport of all nodes: the tests of a module run with one, then with the other."""
    transport = str(request.param)
    if transport == "DevicePlugin":
        fleet.restore()
        yield transport
        return
    fleet.install(values={"transport": transport})
    for node in fleet.nodes:
        eventually(partial(serves_claims, fleet, node), within=READY_SECONDS)
    yield transport
    fleet.restore_later()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Restores the installation for a test whose fixtures do not install the chart with other values."""
    fixtures = getattr(item, "fixturenames", ())
    installing = {"transport", *(name for mark in item.iter_markers("installs") for name in mark.args)}
    found = item.session.stash.get(_FLEET, None)
    if found is not None and "fleet" in fixtures and installing.isdisjoint(fixtures):
        found.restore()


@pytest.fixture
def namespace(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[TestNamespace]:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    found = TestNamespace(fleet, f"{words.removeprefix('test-')[:40].strip('-')}-{secrets.token_hex(2)}")
    yield found
    found.clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that need a newer Kubernetes, and puts files that take long first.

    The tests of a file stay together, in their order.
    """
    kubernetes = ClusterConfig.from_environment().kubernetes
    for item in items:
        features = [feature for mark in item.iter_markers("kubernetes") for feature in mark.args]
        chosen = item.callspec.params.get("transport") if hasattr(item, "callspec") else None
        if reason := reason_to_skip(features, kubernetes, chosen):
            item.add_marker(pytest.mark.skip(reason=reason))
    seconds = expected_seconds((item.path, getattr(item, "fixturenames", ())) for item in items)
    items.sort(key=lambda item: (-seconds[item.path], item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the path of objects and logs to the report of a failed test."""
    report = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and isinstance(namespace, TestNamespace):
        try:
            words = diagnostics.collect(namespace.fleet, namespace.name)
        except Exception as error:  # noqa: BLE001 - the cause of the failure may break this as well; the report must appear
            words = f"not collected: {error!r}"
        report.sections.append(("diagnostics", words))
    return report
