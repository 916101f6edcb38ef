"""Decodes container statuses. Malformed fields are ignored, as in `decode_pod`."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gpufleet_api.names import DRA_DRIVER, POD_CLAIM
from gpufleet_common import timestamps
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text
from gpufleet_operator.model.pod_state.containers import Container, Termination, Waiting

_MAX_MESSAGE = 300
_CLAIMED = re.compile(rf"claim:{POD_CLAIM}(/.+)?")
"""Name of an entry about a claim in `allocatedResourcesStatus`, and the request."""
_CDI_NAME = re.compile(r".*=[0-9a-f-]{36}-\d+-(.+)")
"""ID of a claimed device in CDI: the claim's uid, a number and the device's UUID."""


def container(status: Json) -> Container:
    """Decodes a v1.ContainerStatus of an app or init container."""
    state, last = as_map(status.get("state")), as_map(status.get("lastState"))
    waiting, running, ended = state.get("waiting"), state.get("running"), state.get("terminated")
    return Container(
        name=text(status.get("name")),
        running=running is not None,
        # `terminated` is also set for a container that the runtime never created; only its id shows that it ran.
        ran=running is not None or bool(_ran(ended) or _ran(last.get("terminated"))),
        started_at=moment(as_map(running or ended).get("startedAt")),
        devices=_devices(status),
        ready=status.get("ready") is True,
        started=status.get("started") is True,
        image=text(status.get("image")),
        waiting=_waiting(waiting),
        terminated=_termination(ended),
        last_terminated=_termination(last.get("terminated")),
        restarts=number(status.get("restartCount")),
    )


def _devices(status: Json) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for entry in maps(status.get("allocatedResourcesStatus")):
        name, ids = text(entry.get("name")), [text(r.get("resourceID")) for r in maps(entry.get("resources"))]
        if _CLAIMED.fullmatch(name):
            name, ids = DRA_DRIVER, [match[1] for match in map(_CDI_NAME.fullmatch, ids) if match]
            if not ids:
                continue  # of another driver, whose names of devices have no UUID
        found[name] = found.get(name, frozenset()).union(ids)
    return found


def _waiting(state: Any) -> Waiting | None:
    if state is None:
        return None
    found = as_map(state)
    return Waiting(text(found.get("reason")), text(found.get("message"))[:_MAX_MESSAGE])


def _termination(state: Any) -> Termination | None:
    if state is None:
        return None
    found = as_map(state)
    return Termination(
        exit_code=number(found.get("exitCode")),
        reason=text(found.get("reason")),
        message=text(found.get("message"))[:_MAX_MESSAGE],
        finished_at=moment(found.get("finishedAt")),
    )


def _ran(terminated: Any) -> bool:
    return bool(as_map(terminated).get("containerID"))


def moment(value: Any) -> datetime | None:
    """Returns an RFC 3339 time; None when it is missing or malformed."""
    try:
        return timestamps.parse(text(value))
    except ValueError:
        return None
