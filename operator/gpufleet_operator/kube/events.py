"""v1.Events about workloads: one object per (workload, reason, words), counted up when it repeats."""

import hashlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpufleet_api.names import API_VERSION, OPERATOR_FIELD_MANAGER, WORKLOAD_KIND
from gpufleet_common import timestamps
from gpufleet_operator.kube.errors import AlreadyExistsError, NotFoundError
from gpufleet_operator.kube.writer import Cluster
from gpufleet_operator.model.actions import Event

_NOTE = 1024
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class About:
    """The workload that an event is about."""

    namespace: str
    name: str
    uid: str


class Recorder:
    """Writes events. A repetition within this process's memory is a count, not a new object."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self._cluster = cluster
        self._host = host
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def tell(self, about: About, event: Event, now: datetime) -> None:
        """Write one event. Raises ApiError as any write does."""
        note = event.note if len(event.note) <= _NOTE else event.note[: _NOTE - 1] + "…"
        digest = hashlib.sha256(f"{about.uid}/{event.reason}/{note}".encode()).hexdigest()[:16]
        name = f"{about.name[:200]}.{digest}"
        key = (about.namespace, name)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        if count > 1:
            patch: list[dict[str, Any]] = [
                {"op": "add", "path": "/count", "value": count},
                {"op": "add", "path": "/lastTimestamp", "value": timestamps.seconds(now)},
            ]
            try:
                await self._cluster.patch_event(about.namespace, name, patch)
            except NotFoundError:
                self._counts[key] = 1  # it was kept for an hour, as the apiserver does
            else:
                return
        with suppress(AlreadyExistsError):  # told by an earlier process
            await self._cluster.create_event(about.namespace, self._body(about, name, event, note, now))

    def _body(self, about: About, name: str, event: Event, note: str, now: datetime) -> dict[str, Any]:
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
