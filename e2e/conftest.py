"""The cluster and what stands on it, shared by all end-to-end tests of a run.

`cluster` is a real cluster of two nodes and the tests' own: it runs beside that of `make cluster` and `make demo`, and
ends with the tests, unless it was there before (`python -m gpufleet_testbed up` with this name and network).
`fleet` is the chart installed on it, with simulated GPUs: 16 in the first node, 8 in the second. `room` is a namespace
of one test's own; what must hold at the end of every test is checked when it is cleared.
"""

import re
import secrets
from collections.abc import Generator, Iterator

import pytest

from gpufleet_e2e.proof.testbed import witness_of
from gpufleet_e2e.support import diagnostics
from gpufleet_e2e.support.api import Api
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.sandbox import Room
from gpufleet_e2e.support.watchdog import Watchdog, by_kubelets
from gpufleet_testbed import Cluster, ClusterConfig, cache_dir, up
from gpufleet_testbed.local.processes.lock import Lock, holder

GPUS = (16, 8)
"""Of each node."""

CLUSTER = ClusterConfig(name="e2e", network="10.246.0.0/16", nodes=len(GPUS))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Held by the run, not by the cluster: one that was there before is taken over by one run at a time.
    path = cache_dir() / "e2e-tests.lock"
    lock = Lock.try_acquire(path)
    if lock is None:
        pytest.exit(f"{holder(path)} runs the end-to-end tests; wait for its end", returncode=2)
    with up(CLUSTER) as found:
        yield found
    lock.remove()


@pytest.fixture(scope="session")
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    gpus = {node.name: Gpus(node, count) for node, count in zip(cluster.nodes, GPUS, strict=True)}
    api = Api(cluster.kubeconfig)
    with (
        witness_of(cluster) as witness,
        Watchdog(lambda: by_kubelets(witness.holdings()), every_seconds=0.5) as watchdog,
    ):
        found = Fleet(cluster, api, witness, watchdog, gpus)
        found.install()
        found.renew_agents()
        yield found
    api.close()


@pytest.fixture
def room(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Room]:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    found = Room(fleet, f"{words.removeprefix('test-')[:40].strip('-')}-{secrets.token_hex(2)}")
    yield found
    found.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test's report says where the objects and logs of that moment are."""
    report = yield
    room = getattr(item, "funcargs", {}).get("room")
    if report.failed and isinstance(room, Room):
        try:
            words = diagnostics.collect(room.fleet, room.namespace)
        except Exception as error:  # noqa: BLE001 - what broke the test may break this, too; its report must come out
            words = f"could not be collected: {error!r}"
        report.sections.append(("diagnostics", words))
    return report
