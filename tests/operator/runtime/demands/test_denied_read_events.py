"""A denied read is an event of the pod of the process that leads."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError
from gpufleet_operator.kube.events import ObjectReference
from gpufleet_operator.model.actions import Event
from gpufleet_operator.runtime.demands.denied_read_events import DeniedReadEvents

DEMANDS = "/apis/gpufleet.dev/v1alpha1/gpudemands"
ERROR = InvalidWriteError("gpudemands is forbidden, for 60 s", 403)


class Apiserver:
    """The pod of the process, and the recorder of its events."""

    def __init__(self) -> None:
        self.events: list[tuple[ObjectReference, Event]] = []
        self.error: ApiError | None = None

    async def get(self, path: str) -> dict[str, Any]:
        if path != "/api/v1/namespaces/gpufleet-system/pods/operator-x":
            raise NotFoundError("not found", 404)
        return {"metadata": {"uid": "u"}}

    async def record(self, about: ObjectReference, event: Event, now: datetime) -> None:
        assert now.tzinfo is UTC
        if self.error is not None:
            raise self.error
        self.events.append((about, event))


def events(server: Any, *, namespace: str = "gpufleet-system", leads: bool = True) -> DeniedReadEvents:
    return DeniedReadEvents(server, server, ServerClock(), namespace, "operator-x", may_write=lambda: leads)


async def test_denied_read_is_an_event_of_the_own_pod() -> None:
    server = Apiserver()
    await events(server).record(DEMANDS, ERROR)
    ((about, event),) = server.events
    assert about == ObjectReference("gpufleet-system", "operator-x", "u", "Pod", "v1")
    assert (event.reason, event.warning) == ("ReadsDenied", True)
    assert event.note == f"the apiserver denies reading gpudemands.gpufleet.dev: {ERROR}"


@pytest.mark.parametrize(
    ("namespace", "leads"), [("", True), ("gpufleet-system", False)], ids=["outside of the cluster", "standby"]
)
async def test_process_without_a_pod_or_a_lease_records_nothing(namespace: str, leads: bool) -> None:
    server = Apiserver()
    await events(server, namespace=namespace, leads=leads).record(DEMANDS, ERROR)
    assert not server.events


async def test_event_that_cannot_be_written_is_no_error() -> None:
    server = Apiserver()
    server.error = InvalidWriteError("events is forbidden", 403)
    await events(server).record(DEMANDS, ERROR)
    await events(server, namespace="elsewhere").record(DEMANDS, ERROR)
    assert not server.events
