"""Devices change hands as fast as can be, with forced deletions: never two holders, and all agree at the end."""

import os
from time import monotonic

from support.churn import Churn
from support.fleet import Fleet
from support.room import Room

SECONDS = float(os.environ.get("GPUFLEET_E2E_CHURN_SECONDS", "100"))


def test_churn_with_forced_deletions(room: Room, fleet: Fleet) -> None:
    """Mechanism: reservation by compare-and-swap, hand-over by asking, devices freed only when the node let go.

    The watchdog reads every kubelet's PodResources twice a second all along and must never see a device in two hands.
    What is left at the end agrees by every source.
    """
    fleet.watchdog.check()
    begin = monotonic()
    churn = Churn(room, seed=4)
    left = churn.run(SECONDS)
    looks = fleet.watchdog.check()
    print(f"{monotonic() - begin:.0f} s: {dict(churn.done)}; the kubelets were asked {looks} times")
    assert looks > SECONDS / 4, "the watchdog slept"
    assert churn.done["deleted by force"] > 0
    assert churn.done["deleted"] > 0
    room.proven(*left, within=60)
