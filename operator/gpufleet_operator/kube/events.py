"""Records v1.Events about workloads. One that repeats is counted up in one object."""

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

_MAX_NOTE = 1024
_MAX_COUNTED = 4096


@dataclass(frozen=True, slots=True)
class WorkloadReference:
    """The object that an event is about."""

    namespace: str
    name: str
    uid: str


class WorkloadEventRecorder:
    """Writes events.

    Args:
        writer: The apiserver.
        host: Name of the reporting instance.
    """

    def __init__(self, writer: KubeWriter, host: str) -> None:
        self._writer = writer
        self._host = host
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def record(self, about: WorkloadReference, event: Event, now: datetime) -> None:
        """Creates an event, or counts up the one with the same workload, reason and note.

        Raises:
            ApiError: The event was not written.
        """
        note = event.note if len(event.note) <= _MAX_NOTE else event.note[: _MAX_NOTE - 1] + "…"
        digest = hashlib.sha256(f"{about.uid}/{event.reason}/{note}".encode()).hexdigest()[:16]
        name = f"{about.name[:200]}.{digest}"
        key = (about.namespace, name)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        while len(self._counts) > _MAX_COUNTED:
            self._counts.popitem(last=False)
        if count > 1:
            patch: list[dict[str, Any]] = [
                {"op": "add", "path": "/count", "value": count},
                {"op": "add", "path": "/lastTimestamp", "value": timestamps.seconds(now)},
            ]
            try:
                await self._writer.patch_event(about.namespace, name, patch)
            except NotFoundError:
                self._counts[key] = 1  # the apiserver keeps events for an hour
            else:
                return
        with suppress(AlreadyExistsError):  # created by an earlier process
            await self._writer.create_event(about.namespace, self._body(about, name, event, note, now))

    def _body(self, about: WorkloadReference, name: str, event: Event, note: str, now: datetime) -> dict[str, Any]:
        moment = timestamps.seconds(now)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": WORKLOAD_KIND,
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
