"""Records v1.Events: one per object and reason, which is counted up and has the latest note.

So a workload that cannot run has as many events as reasons, however often it is retried.
"""

import hashlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpufleet_api.names import API_VERSION, OPERATOR_FIELD_MANAGER, WORKLOAD_KIND
from gpufleet_common import timestamps
from gpufleet_operator.kube.errors import AlreadyExistsError, NotFoundError
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import Event

POD_KIND = "Pod"
_MAX_NOTE = 1024
_MAX_COUNTED = 4096


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an event is about: a GPUWorkload unless `kind` is set."""

    namespace: str
    name: str
    uid: str
    kind: str = WORKLOAD_KIND
    api_version: str = API_VERSION


class ObjectEventRecorder:
    """Writes events.

    Args:
        writer: The apiserver.
        host: Name of the reporting instance.
    """

    def __init__(self, writer: KubeWriter, host: str) -> None:
        self._writer = writer
        self._host = host
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def record(self, about: ObjectReference, event: Event, now: datetime) -> None:
        """Creates an event, or counts up the one with the same object and reason and replaces its note.

        Raises:
            ApiError: The event was not written.
        """
        note = event.note if len(event.note) <= _MAX_NOTE else event.note[: _MAX_NOTE - 1] + "…"
        digest = hashlib.sha256(f"{about.uid}/{event.reason}".encode()).hexdigest()[:16]
        name = f"{about.name[:200]}.{digest}"
        if (about.namespace, name) in self._counts:
            with suppress(NotFoundError):  # the apiserver keeps events for an hour
                await self._count_up(about, name, note, now)
                return
        try:
            await self._writer.create_event(about.namespace, self._body(about, name, event, note, now))
        except AlreadyExistsError:  # created by an earlier process
            stored = await self._writer.patch_event(about.namespace, name, [])
            self._remember(about, name, int(stored.get("count") or 1))
            await self._count_up(about, name, note, now)
        else:
            self._remember(about, name, 1)

    async def _count_up(self, about: ObjectReference, name: str, note: str, now: datetime) -> None:
        count = self._counts[about.namespace, name] + 1
        patch: list[dict[str, Any]] = [
            {"op": "add", "path": "/count", "value": count},
            {"op": "add", "path": "/message", "value": note},
            {"op": "add", "path": "/lastTimestamp", "value": timestamps.seconds(now)},
        ]
        await self._writer.patch_event(about.namespace, name, patch)
        self._remember(about, name, count)

    def _remember(self, about: ObjectReference, name: str, count: int) -> None:
        self._counts[about.namespace, name] = count
        self._counts.move_to_end((about.namespace, name))
        while len(self._counts) > _MAX_COUNTED:
            self._counts.popitem(last=False)

    def _body(self, about: ObjectReference, name: str, event: Event, note: str, now: datetime) -> dict[str, Any]:
        moment = timestamps.seconds(now)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
            "reason": event.reason,
            "message": note,
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": OPERATOR_FIELD_MANAGER, "host": self._host},
            "reportingComponent": OPERATOR_FIELD_MANAGER,
            "reportingInstance": self._host,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
