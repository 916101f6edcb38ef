"""`gpufleet suspend`, `resume` and `logs`."""

from collections.abc import Sequence
from dataclasses import dataclass

import typer

from gpufleet_api.names import REPLICA_LABEL, WORKLOAD_LABEL, WORKLOAD_PLURAL
from gpufleet_cli.cluster.kinds import WORKLOAD_PODS, WORKLOADS
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.lists import read_lists
from gpufleet_cli.commands.live.reading import scope, view_of
from gpufleet_cli.errors import InputError
from gpufleet_cli.options.target import Target
from gpufleet_cli.view.lookup import named, split_name
from gpufleet_cli.view.pod_view import PodView


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of `kubectl logs`. `tail` -1: all lines."""

    replica: int | None = None
    follow: bool = False
    previous: bool = False
    container: str | None = None
    tail: int = -1
    since: str | None = None
    timestamps: bool = False


def suspend(target: Target, names: Sequence[str], *, suspended: bool) -> None:
    """Sets spec.suspend of workloads, which deletes their pods and frees their GPUs, or places them again."""
    kubectl = Kubectl(target.connection)
    default = scope(target) or "default"
    for name in names:
        space, _ = split_name(name, default)
        view = view_of(read_lists(kubectl, [WORKLOADS], namespace=space))
        workload = named("GPUWorkload", name, default, view.workloads)
        word = "suspended" if suspended else "resumed"
        if workload.suspended != suspended:
            kubectl.patch(WORKLOAD_PLURAL, workload.name, {"spec": {"suspend": suspended}}, namespace=space)
        else:
            word = "is already suspended" if suspended else "is not suspended"
        typer.echo(f"gpuworkload.gpufleet.dev/{workload.name} {word}")


def logs(target: Target, name: str, options: LogOptions) -> int:
    """Prints the logs of a workload's pods, as `kubectl logs` does, and returns its exit code."""
    kubectl = Kubectl(target.connection)
    default = scope(target) or "default"
    space, bare = split_name(name, default)
    view = view_of(read_lists(kubectl, [WORKLOADS], [WORKLOAD_PODS], space))
    workload = named("GPUWorkload", name, default, view.workloads)
    pods = [pod for pod in view.pods_of(workload) if options.replica in (None, pod.replica)]
    started = [pod for pod in pods if pod.containers]
    if not started:
        which = f"replica {options.replica} of {bare}" if options.replica is not None else bare
        states = ", ".join(f"pod {pod.name}: {pod.state}" for pod in pods)
        verdict = workload.verdict
        why = states or (str(verdict) if verdict is not None else "the operator has not seen the workload yet")
        raise InputError(f"{which} has no container that has started ({why}): see gpufleet explain {bare}")
    return kubectl.follow(*_arguments(space, bare, started, options))


def _arguments(namespace: str, workload: str, pods: Sequence[PodView], options: LogOptions) -> list[str]:
    given = ["logs", f"--namespace={namespace}", f"--tail={options.tail}"]
    if len(pods) == 1:
        given.append(pods[0].name)
    else:
        selector = f"{WORKLOAD_LABEL}={workload}"
        if options.replica is not None:
            selector += f",{REPLICA_LABEL}={options.replica}"
        given += [f"--selector={selector}", "--prefix", f"--max-log-requests={len(pods)}"]
    given += ["--follow"] if options.follow else []
    given += ["--previous"] if options.previous else []
    given += ["--timestamps"] if options.timestamps else []
    given += [f"--container={options.container}"] if options.container else []
    given += [f"--since={options.since}"] if options.since else []
    return given
