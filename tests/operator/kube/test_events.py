"""Events: one object per workload and reason, counted up when it repeats, with the latest note."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gpufleet_operator.kube.errors import AlreadyExistsError, NotFoundError
from gpufleet_operator.kube.events import ObjectEventRecorder, ObjectReference
from gpufleet_operator.model.actions import Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ABOUT = ObjectReference("ml", "train", "uid-train")


class Cluster:
    def __init__(self) -> None:
        self.created: list[Any] = []
        self.patched: list[Any] = []
        self.exists = False
        self.expired = False
        self.note = ""

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        if self.exists:
            raise AlreadyExistsError("exists", 409)
        self.created.append(body)

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        if self.expired:
            raise NotFoundError("gone", 404)
        if patch:
            self.patched.append((name, patch[0]["value"]))
            self.note = patch[1]["value"]
        return {"count": 5}


def recorder(cluster: Cluster) -> ObjectEventRecorder:
    return ObjectEventRecorder(cluster, "host")  # type: ignore[arg-type]  # the part of Cluster that it uses


async def test_a_repeated_event_is_counted_up() -> None:
    cluster = Cluster()
    found = recorder(cluster)

    for _ in range(3):
        await found.record(ABOUT, Event("NoDevicesAvailable", "none", warning=True), NOW)

    (body,) = cluster.created
    assert (body["reason"], body["message"], body["type"], body["count"]) == (
        "NoDevicesAvailable",
        "none",
        "Warning",
        1,
    )
    assert body["involvedObject"]["uid"] == "uid-train"
    assert cluster.patched == [(body["metadata"]["name"], 2), (body["metadata"]["name"], 3)]


async def test_other_notes_of_a_reason_are_counted_in_one_event() -> None:
    cluster = Cluster()
    found = recorder(cluster)

    for note in ("pod a: no", "pod b: no", "pod c: still no"):
        await found.record(ABOUT, Event("Unschedulable", note), NOW)

    assert len(cluster.created) == 1
    assert [count for _, count in cluster.patched] == [2, 3]
    assert cluster.note == "pod c: still no"


async def test_another_reason_is_another_event() -> None:
    cluster = Cluster()
    found = recorder(cluster)

    for reason in ("NoDevicesAvailable", "Placed"):
        await found.record(ABOUT, Event(reason, "x"), NOW)

    assert len({body["metadata"]["name"] for body in cluster.created}) == 2


async def test_an_event_of_an_earlier_process_is_counted_on() -> None:
    cluster = Cluster()
    cluster.exists = True

    await recorder(cluster).record(ABOUT, Event("Placed", "x"), NOW)

    assert [count for _, count in cluster.patched] == [6]


async def test_an_expired_event_is_created_again() -> None:
    cluster = Cluster()
    found = recorder(cluster)
    await found.record(ABOUT, Event("Placed", "x"), NOW)
    cluster.expired = True

    await found.record(ABOUT, Event("Placed", "x"), NOW)

    assert len(cluster.created) == 2


async def test_a_long_note_is_truncated_to_the_limit() -> None:
    cluster = Cluster()

    await recorder(cluster).record(ABOUT, Event("Placed", "x" * 3000), NOW)

    assert len(cluster.created[0]["message"]) == 1024
