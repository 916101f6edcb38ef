"""The number of operators and their template change by upgrades of the chart, while work is placed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from gpufleet_e2e.faults.decision_audit import DecisionAudit
from gpufleet_e2e.faults.leader import FAILOVER_SECONDS, READY_SECONDS, check_ready, find_leader
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

UPGRADES = (("elects", 2, "1"), ("fewer", 1, "1"), ("more", 2, "1"), ("other", 2, "2"), ("fewer-other", 1, "3"))
"""Name, replicas, and annotation of the template after each upgrade."""
WORKLOADS = 4
"""One after the other, during each upgrade."""
RESERVED_SECONDS = 45
"""A process ends and another one starts meanwhile."""


@pytest.fixture
def without_election(fleet: Fleet) -> Iterator[None]:
    """One operator without a Lease."""
    fleet.install(operator={"leaderElection": False})
    yield
    fleet.install()


def test_upgrades_of_the_operators_while_work_is_placed(
    namespace: TestNamespace, fleet: Fleet, without_election: None
) -> None:
    """Mechanism: one that decides holds the Lease, also a single one. One without a Lease ends before others start.

    Invariants: at most one decides at a time; no pod is deleted; no pod is released without a reservation; no device
    has two holders.
    """
    del without_election
    placed: list[str] = []
    with DecisionAudit(namespace) as audit:
        for name, replicas, template in UPGRADES:
            with ThreadPoolExecutor(1) as pool:
                operator = {"replicas": replicas, "podAnnotations": {"template": template}}
                upgrade = pool.submit(fleet.install, operator=operator)
                for number in range(WORKLOADS):
                    placed.append(f"{name}-{number}")
                    namespace.apply(gpuworkload(placed[-1]))
                    eventually(lambda: namespace.reservation(placed[-1]), within=RESERVED_SECONDS)
                upgrade.result()
            eventually(partial(check_ready, fleet, replicas), within=READY_SECONDS)
            eventually(lambda: find_leader(fleet), within=FAILOVER_SECONDS)
        found = namespace.verify(*placed)
    audit.check()
    print(f"{audit.reads} reads; decided: {sorted(audit.leaders)}")
    assert {one.pod_uid for name in placed for one in found[name].replicas} == set(audit.pods)
    assert len(audit.leaders) > len(UPGRADES) / 2, audit.leaders
