"""Devices change hands as fast as can be, with forced deletions: never two holders, and all agree at the end."""

import os
from functools import partial
from time import monotonic

import pytest

from gpufleet_e2e.support.churn import Churn
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.sandbox import Room
from gpufleet_e2e.support.watchdog import Watchdog, by_processes

SECONDS = float(os.environ.get("GPUFLEET_E2E_CHURN_SECONDS", "100"))


@pytest.mark.timeout(SECONDS + 300)
def test_churn_with_forced_deletions(room: Room, fleet: Fleet) -> None:
    """Mechanism: reservation by compare-and-swap, hand-over by asking, devices freed only when the node let go.

    All along, one watchdog asks every kubelet for its PodResources and another one looks at the processes that live on
    this machine with a device in their environment; neither may ever see a device in two hands. Half of the containers
    don't hear the signal to end, so that they outlive their pods' objects when these are deleted by force. What is left
    at the end agrees by every source.
    """
    fleet.watchdog.check()
    begin = monotonic()
    churn = Churn(room, seed=4)
    with Watchdog(partial(by_processes, "churn-"), every_seconds=0.1) as processes:
        left = churn.run(SECONDS)
        took = monotonic() - begin
        room.proven(*left, within=60)
        asked, looked = fleet.watchdog.check(), processes.check()
    print(f"{took:.0f} s: {dict(churn.done)}; kubelets asked {asked} times, processes seen {looked} times,")
    print(f"at most {processes.most} devices in use at once")
    assert asked > SECONDS / 4, "the watchdog of the kubelets slept"
    assert looked > SECONDS, "the watchdog of the processes slept"
    assert processes.most > len(left), "the processes of the pods are not to be seen here"
    assert churn.done["deleted by force"] > 0
    assert churn.done["deleted"] > 0
