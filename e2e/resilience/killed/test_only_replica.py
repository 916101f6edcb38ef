"""The only replica of the operator ends, and its container is restarted."""

import time

import pytest

from gpufleet_e2e.faults.leader import (
    FAILOVER_SECONDS,
    HANDOVER_SECONDS,
    Leader,
    check_other_leads,
    find_leader,
    holder,
    replace_restarted,
)
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_operator.kube.leader_election import LEASE_SECONDS


def _gave_back(fleet: Fleet, leader: Leader) -> None:
    assert holder(fleet) != leader.identity, "the Lease is not released"


@pytest.mark.parametrize(
    ("signal", "seconds"), [("TERM", LEASE_SECONDS), ("KILL", FAILOVER_SECONDS)], ids=["stopped", "killed"]
)
def test_restarted_replica_leads_again(namespace: TestNamespace, fleet: Fleet, signal: str, seconds: float) -> None:
    """Mechanism: a stopped process releases the Lease. That of a killed one expires while its successor starts.

    The successor of a stopped process would not lead in this time if it waited for the Lease to expire.
    """
    namespace.apply(gpuworkload("early"))
    before = namespace.verify("early")["early"].replicas
    leader = eventually(lambda: find_leader(fleet), within=FAILOVER_SECONDS)
    leader.signal(signal)
    began = time.monotonic()
    if signal == "TERM":
        eventually(lambda: _gave_back(fleet, leader), within=HANDOVER_SECONDS, every=0.1)
    namespace.apply(gpuworkload("late"))

    eventually(lambda: check_other_leads(fleet, leader), within=seconds)
    print(f"the next process leads after {time.monotonic() - began:.1f} s")

    assert namespace.verify("early", "late")["early"].replicas == before, "a running pod changed"
    replace_restarted(fleet, 1)
