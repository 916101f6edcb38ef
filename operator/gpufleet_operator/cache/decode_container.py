"""Decodes container statuses. Malformed fields are ignored, as in `decode_pod`."""

from datetime import datetime
from typing import Any

from gpufleet_common import timestamps
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text
from gpufleet_operator.model.pod_state.containers import Container, Termination, Waiting

_MAX_MESSAGE = 300


def container(status: Json) -> Container:
    """Decodes a v1.ContainerStatus of an app or init container."""
    state, last = as_map(status.get("state")), as_map(status.get("lastState"))
    waiting, running, ended = state.get("waiting"), state.get("running"), state.get("terminated")
    return Container(
        name=text(status.get("name")),
        running=running is not None,
        # `terminated` is also set for a container that the runtime never created; only its id shows that it ran.
        ran=running is not None or bool(_ran(ended) or _ran(last.get("terminated"))),
        started_at=_moment(as_map(running or ended).get("startedAt")),
        devices={
            text(entry.get("name")): frozenset(text(r.get("resourceID")) for r in maps(entry.get("resources")))
            for entry in maps(status.get("allocatedResourcesStatus"))
        },
        ready=status.get("ready") is True,
        started=status.get("started") is True,
        image=text(status.get("image")),
        waiting=_waiting(waiting),
        terminated=_termination(ended),
        last_terminated=_termination(last.get("terminated")),
        restarts=number(status.get("restartCount")),
    )


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
        finished_at=_moment(found.get("finishedAt")),
    )


def _ran(terminated: Any) -> bool:
    return bool(as_map(terminated).get("containerID"))


def _moment(value: Any) -> datetime | None:
    try:
        return timestamps.parse(text(value))
    except ValueError:
        return None
