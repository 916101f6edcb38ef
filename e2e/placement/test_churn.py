"""Devices change holders fast, with forced deletions: never two holders, and all sources agree at the end."""

import os
from functools import partial
from time import monotonic

import pytest

from gpufleet_e2e.support.churn import Churn
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_e2e.support.watchdog import Watchdog, holders_by_processes

SECONDS = float(os.environ.get("GPUFLEET_E2E_CHURN_SECONDS", "60"))


@pytest.mark.timeout(SECONDS + 300)
def test_churn_with_forced_deletions(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: reservation by compare-and-swap, hand-over by reading the kubelet, release after the node's report.

    With claims the driver waits for the processes of the pod before.

    One watchdog polls the PodResources of every kubelet and another one the processes of this machine that have a
    device in their environment; neither may see a device with two holders. Half of the containers ignore SIGTERM, so
    that they outlive their pods' objects when these are deleted by force. At the end all sources agree.
    """
    fleet.watchdog.check()
    begin = monotonic()
    churn = Churn(namespace, seed=4)
    with Watchdog(partial(holders_by_processes, "churn-"), every_seconds=0.1) as processes:
        left = churn.run(SECONDS)
        took = monotonic() - begin
        namespace.verify(*left, within=60)
        kubelet_reads, process_reads = fleet.watchdog.check(), processes.check()
    print(f"{transport}, {took:.0f} s: {dict(churn.done)}; at most {processes.max_in_use} devices in use")
    print(f"{kubelet_reads} reads of the kubelets, {process_reads} of the processes")
    assert kubelet_reads > SECONDS / 4, "the watchdog of the kubelets was too slow"
    assert process_reads > SECONDS, "the watchdog of the processes was too slow"
    assert processes.max_in_use > len(left), "the processes of the pods are not visible on this machine"
    assert churn.done["deleted by force"] > 0
    assert churn.done["deleted"] > 0
