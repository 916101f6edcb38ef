"""Telemetry older than the limit is not scheduled on, says so, and is used again when it is fresh."""

from collections.abc import Iterator
from time import monotonic

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import STALE_SECONDS
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.sandbox import Room

SOON_SECONDS = 5


@pytest.fixture
def frozen(room: Room, fleet: Fleet) -> Iterator[str]:
    """A node on which the workload `runs` holds a device, and whose agent then is stopped where it stands."""
    node = fleet.nodes[0]
    room.apply(gpuworkload("runs", node=node))
    room.proven("runs")
    fleet.freeze_agent(node)
    yield node
    fleet.thaw_agent(node)


def test_a_silent_agent(room: Room, fleet: Fleet, frozen: str) -> None:
    """Mechanism: age by the server's time of the last write. The silent node is passed over, the other one serves.

    What runs on the silent node goes on, and its workload says that it can't be watched (Degraded).
    """
    before = _container(room)
    message = room.wait_condition("runs", "Degraded", "True", "TelemetryStale", within=STALE_SECONDS + 5)
    print(message)
    assert frozen in message
    room.apply(gpuworkload("here-only", node=frozen), gpuworkload("anywhere", replicas=2, count=3))
    message = room.wait_condition("here-only", "Placed", "False", "NoDevices")
    print(message)
    assert f"older than {STALE_SECONDS} s" in message
    said = room.workload("here-only")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in said["rejections"]}["TelemetryStale"] == 16, said
    assert {replica.node for replica in room.proven("anywhere")["anywhere"].replicas} == {fleet.nodes[1]}
    fleet.thaw_agent(frozen)
    began = monotonic()
    room.wait_for("here-only", lambda found: objects.is_true(found, "Placed"), SOON_SECONDS)
    print(f"picked again {monotonic() - began:.1f} s after the agent goes on")
    room.proven("here-only", "runs", "anywhere")
    room.wait_condition("runs", "Degraded", "False", "AsExpected")
    assert _container(room) == before, "a running pod was touched"


def _container(room: Room) -> str:
    return str(room.pod("runs")["status"]["containerStatuses"][0]["containerID"])
