"""Promised memory that a container does not use is given to others only if its workload agrees."""

from datetime import datetime

from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import RECLAIM_AFTER_SECONDS
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

PROMISED = 60_000
USED = 9_000
LATE = 50_000
"""MiB. With the promise more than the 81,559 MiB of a device, with what is used less."""


def part(name: str, uuid: str, memory: int, reclaim: str) -> JsonObject:
    """Builds a workload that shares this device."""
    asked = {"mode": "Shared", "memoryMiB": memory}
    return gpuworkload(name, devices=asked, uuids=(uuid,), placement={"reclaim": reclaim})


def test_unused_promise_is_given_to_others_only_with_consent(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the agent reports what each holder uses and since when; the operator counts a holder with it.

    Two devices have a holder each that uses much less than it was promised. Only one of them shares its promise.
    """
    node = fleet.nodes[1]
    keeping, sharing = fleet.gpus[node].uuids[5:7]
    namespace.apply(part("keeps", keeping, PROMISED, "Never"), part("shares", sharing, PROMISED, "Used"))
    namespace.verify("keeps", "shares")
    for uuid in (keeping, sharing):
        fleet.gpus[node].report(uuid, memory_used_mib=USED)
    eventually(lambda: _is_observed(fleet, node, sharing), within=30)

    namespace.apply(part("late-keeps", keeping, LATE, "Never"), part("late-shares", sharing, LATE, "Never"))
    assert namespace.devices("late-shares") == (sharing,)
    namespace.wait_rejected("late-keeps", "InsufficientFreeMemory", 1, within=15)
    namespace.verify("keeps", "shares", "late-shares")


def _is_observed(fleet: Fleet, node: str, uuid: str) -> None:
    """Asserts that the agent has observed the only holder of this device for long enough."""
    status = fleet.telemetry(node)["status"]
    (holder,) = next(device["allocatedTo"] for device in status["devices"] if device["uuid"] == uuid)
    assert (holder.get("memoryUsedMiB"), holder.get("memoryUsedMaxMiB")) == (USED, USED), holder
    since, observed_at = (datetime.fromisoformat(text) for text in (holder["observedSince"], status["observedAt"]))
    assert (observed_at - since).total_seconds() >= RECLAIM_AFTER_SECONDS, holder
