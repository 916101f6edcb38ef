"""Why a pod is not Ready, or failed: container, reason and exit code, as the kubelet reports them."""

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.containers import Container, Termination

NOT_READY = "PodsNotReady"
"""Reason for which no container is to blame, such as a readiness probe that has not succeeded yet."""

_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons of containers that wait for others, or that the kubelet is about to start."""

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
_ALTERNATING = {"ErrImagePull": "ImagePullBackOff"}
"""The kubelet alternates between these two while it retries; one of them is reported for both."""

_UNINFORMATIVE = frozenset({"", "Error", "Completed"})
_SIGNALED = 128
"""An exit code above this is the number of a signal plus this, by the convention of shells and runtimes."""


@dataclass(frozen=True, slots=True)
class PodProblem:
    """A reason in CamelCase, and a message that names container, reason and exit code."""

    reason: str
    message: str


def failure(pod: Pod) -> str:
    """Returns why a pod failed: the containers that ended with an error, else the reason in the pod's status."""
    reason = ": ".join(part for part in (pod.reason, pod.message) if part)
    if pod.reason:
        return reason
    ended = [
        f"{_name(kind, c)}: {_termination(c.terminated)}"
        for kind, c in _containers(pod)
        if c.terminated is not None and c.terminated.exit_code != 0
    ]
    return "; ".join(ended) or reason or "pod failed"


def not_ready(pod: Pod) -> PodProblem:
    """Returns why a pod that is bound and has not ended is not Ready. Errors come before containers that start."""
    found = [problem for kind, c in _containers(pod) if (problem := _error(kind, c)) is not None]
    if found:
        return found[0]
    starting = _initializing(pod.init_containers) or _starting(pod.containers)
    return PodProblem(NOT_READY, starting or pod.not_ready or "the kubelet has not started the containers yet")


def last_failure(pod: Pod) -> str:
    """Returns how the containers of a pod ended that were restarted in it."""
    ended = [
        f"{_name(kind, c)}: {_termination(last)}"
        for kind, c in _containers(pod)
        if c.restarts and (last := c.last_terminated or c.terminated) is not None
    ]
    return "; ".join(ended) or "containers restarted"


def _containers(pod: Pod) -> Iterable[tuple[str, Container]]:
    yield from (("init container", c) for c in pod.init_containers)
    yield from (("container", c) for c in pod.containers)


def _error(kind: str, container: Container) -> PodProblem | None:
    waiting, last = container.waiting, container.last_terminated
    if waiting is not None and waiting.reason not in _STARTING:
        reason = _ALTERNATING.get(waiting.reason, waiting.reason)
        detail = waiting.message
        if waiting.reason in _IMAGE:
            detail = ": ".join(part for part in (container.image, waiting.message) if part)
        elif waiting.reason == "CrashLoopBackOff" and last is not None:
            detail = f"{_termination(last)}, {_restarts(container)}"
        return PodProblem(reason, ": ".join(part for part in (_name(kind, container), reason, detail) if part))
    ended = container.terminated
    if ended is not None and ended.exit_code != 0:
        reason = ended.reason if ended.reason not in _UNINFORMATIVE else "ContainerFailed"
        return PodProblem(reason, f"{_name(kind, container)}: {_termination(ended)}")
    return None


def _initializing(containers: Iterable[Container]) -> str:
    """Returns the first init container that has neither completed nor, as a sidecar, started; empty: there is none."""
    pending = next((c for c in containers if not (c.ready or c.started)), None)
    return f"{_name('init container', pending)} has not completed yet" if pending is not None else ""


def _starting(containers: Iterable[Container]) -> str:
    """Returns the first container that does not run, or runs and is not ready; empty: there is none."""
    for container in containers:
        name, last = _name("container", container), container.last_terminated
        restarted = f", restarted after {_termination(last)}" if last is not None else ""
        if container.waiting is not None:
            return f"{name}: {container.waiting.reason or 'ContainerCreating'}{restarted}"
        if container.running and not container.started:
            return f"{name} runs, its startup probe has not succeeded yet{restarted}"
        if container.running and not container.ready:
            return f"{name} runs, its readiness probe does not succeed{restarted}"
        if container.terminated is not None and not container.ready:
            return f"{name}: Completed"
    return ""


def _termination(ended: Termination) -> str:
    """Returns `OOMKilled (exit code 137)`, `exit code 3` or `exit code 139 (SIGSEGV)`, with the container's message."""
    code = f"exit code {ended.exit_code}"
    if ended.reason not in _UNINFORMATIVE:
        text = f"{ended.reason} ({code})"
    else:
        name = _signal(ended.exit_code)
        text = f"{code} ({name})" if name else code
    return f"{text}: {ended.message.strip()}" if ended.message.strip() else text


def _signal(exit_code: int) -> str:
    try:
        return signal.Signals(exit_code - _SIGNALED).name
    except ValueError:
        return ""


def _restarts(container: Container) -> str:
    return f"{container.restarts} restart{'' if container.restarts == 1 else 's'}"


def _name(kind: str, container: Container) -> str:
    return f"{kind} {container.name}"
