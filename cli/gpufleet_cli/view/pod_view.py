"""Pods, with the state of their containers in words."""

from collections.abc import Iterator
from dataclasses import dataclass

from gpufleet_api.names import (
    API_VERSION,
    REPLICA_LABEL,
    SCHEDULING_GATE,
    WAITING_FOR_ANNOTATION,
    WORKLOAD_KIND,
    WORKLOAD_LABEL,
)
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text

_WAITS = {
    "Devices": "devices",
    "Gang": "the rest of its gang",
    "GPUWorkload": "its GPUWorkload",
    "OtherSchedulingGates": "other scheduling gates",
    "Pods": "the other pods of its owner",
    "Predecessor": "the end of the pod that it replaces",
    "Release": "its release",
    "ResourceClaim": "its ResourceClaim",
    "Resume": "its workload to be resumed",
    "ValidPod": "a valid pod",
    "ValidTemplate": "a valid template",
}
"""Descriptions of the values of the annotation `waiting-for`."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod. `state` is the word that `kubectl get pods` shows as its status."""

    namespace: str
    name: str
    uid: str
    node: str
    phase: str
    state: str
    containers: tuple[str, ...]
    """`main: running, 2 restarts`."""
    ready: bool
    message: str = ""
    """Why it failed or is not scheduled; empty: neither."""
    workload: str | None = None
    replica: int | None = None
    owner_uid: str = ""
    """UID of the GPUWorkload that controls it; empty: none does."""
    gates: tuple[str, ...] = ()
    waiting_for: str = ""
    """The value of the annotation; `waits_for` is its description."""
    deleting: bool = False
    resources: tuple[tuple[str, str], ...] = ()
    """Extended resources that its containers request."""

    @property
    def gated(self) -> bool:
        """True while the gate of gpufleet is set."""
        return SCHEDULING_GATE in self.gates

    @property
    def waits_for(self) -> str:
        """What a gated pod waits for; empty: not known."""
        return _WAITS.get(self.waiting_for, self.waiting_for)


def pod_view(body: Json) -> PodView:
    """Decodes a pod."""
    meta, spec, status = (as_map(body.get(name)) for name in ("metadata", "spec", "status"))
    labels = as_map(meta.get("labels"))
    replica = text(labels.get(REPLICA_LABEL))
    gates = tuple(text(gate.get("name")) for gate in maps(spec.get("schedulingGates")))
    deleting = "deletionTimestamp" in meta
    statuses = [*maps(status.get("initContainerStatuses")), *maps(status.get("containerStatuses"))]
    return PodView(
        namespace=text(meta.get("namespace")),
        name=text(meta.get("name")),
        uid=text(meta.get("uid")),
        node=text(spec.get("nodeName")),
        phase=text(status.get("phase")) or "Pending",
        state=_state(status, statuses, gates, deleting=deleting),
        containers=tuple(_container(one) for one in statuses),
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in maps(status.get("conditions"))),
        message=_message(status),
        workload=text(labels.get(WORKLOAD_LABEL)) or None,
        replica=int(replica) if replica.isascii() and replica.isdigit() else None,
        owner_uid=_owner(meta),
        gates=gates,
        waiting_for=text(as_map(meta.get("annotations")).get(WAITING_FOR_ANNOTATION)),
        deleting=deleting,
        resources=tuple(_resources(spec)),
    )


def _owner(meta: Json) -> str:
    for one in maps(meta.get("ownerReferences")):
        if one.get("controller") and (one.get("kind"), one.get("apiVersion")) == (WORKLOAD_KIND, API_VERSION):
            return text(one.get("uid"))
    return ""


def _state(status: Json, statuses: list[Json], gates: tuple[str, ...], *, deleting: bool) -> str:
    if deleting:
        return "Terminating"
    if gates:
        return "SchedulingGated"
    if reason := text(status.get("reason")):
        return reason
    for one in statuses:
        state = as_map(one.get("state"))
        waiting = text(as_map(state.get("waiting")).get("reason"))
        if waiting and waiting != "PodInitializing":
            return waiting
        ended = as_map(state.get("terminated"))
        if ended and number(ended.get("exitCode")) != 0:
            return text(ended.get("reason")) or "Error"
    return text(status.get("phase")) or "Pending"


def _container(one: Json) -> str:
    state, last = as_map(one.get("state")), as_map(as_map(one.get("lastState")).get("terminated"))
    waiting, ended = as_map(state.get("waiting")), as_map(state.get("terminated"))
    if waiting:
        words = ": ".join(filter(None, (text(waiting.get("reason")) or "waiting", text(waiting.get("message")))))
    elif ended:
        words = f"{text(ended.get('reason')) or 'ended'} (exit code {number(ended.get('exitCode'))})"
    else:
        words = "running" if state.get("running") is not None else "not started"
        if state.get("running") is not None and not one.get("ready"):
            words += ", not ready"
    restarts = number(one.get("restartCount"))
    if restarts:
        words += f", {restarts} restart{'' if restarts == 1 else 's'}"
        if last:
            words += f" (last exit code {number(last.get('exitCode'))})"
    return f"{text(one.get('name'))}: {words}"


def _message(status: Json) -> str:
    if message := text(status.get("message")):
        return message
    for condition in maps(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return text(condition.get("message"))
    return ""


def _resources(spec: Json) -> Iterator[tuple[str, str]]:
    """Yields the extended resources of all containers, such as `nvidia.com/gpu` and `2`."""
    for container in (*maps(spec.get("initContainers")), *maps(spec.get("containers"))):
        limits = as_map(as_map(container.get("resources")).get("limits"))
        yield from ((name, str(amount)) for name, amount in limits.items() if "/" in name)
