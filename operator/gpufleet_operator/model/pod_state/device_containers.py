"""The containers of a pod that get devices, in the order in which the kubelet admits them: sidecars first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpufleet_api.base import ContainerDevices
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.lenient_json import maps
from gpufleet_operator.model.objects import Pod


@dataclass(frozen=True, slots=True)
class DevicesOfContainer:
    """The devices of an assignment that one container gets."""

    container: str
    devices: frozenset[str]


def counts(spec: WorkloadSpec) -> dict[str, int]:
    """Returns the number of devices of each container that `spec.devices` names; empty if it names none."""
    if spec.devices.containers:
        return {one.name: one.count for one in spec.devices.containers}
    return {spec.devices.container: spec.devices.count} if spec.devices.container else {}


def of_template(spec: WorkloadSpec) -> dict[str, int]:
    """Returns the number of devices of each container of a valid template, in order."""
    wanted = counts(spec) or {str(spec.pod_spec["containers"][0]["name"]): spec.devices.count}
    started = [str(c.get("name")) for c in (*sidecars(spec.pod_spec), *maps(spec.pod_spec.get("containers")))]
    return {name: wanted[name] for name in started if name in wanted}


def of_pod(pod: Pod, resource: str) -> dict[str, int]:
    """Returns the number of devices of each container of a valid pod, in order."""
    return {r.container: r.of(resource) for r in pod.device_requests if r.of(resource)}


def of_claim(spec: WorkloadSpec, pod: Pod) -> dict[str, int]:
    """Returns the number of devices of each container of a pod with a claim, in order.

    The claim does not exist yet, so the pod names the containers, and the workload the numbers.
    """
    using = pod.device_claim.containers if pod.device_claim is not None else ()
    if len(using) == 1:
        return {using[0]: spec.devices.count}
    wanted = counts(spec)
    return {name: wanted[name] for name in using if name in wanted} or of_template(spec)


def sidecars(pod_spec: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    """Returns the init containers that run as long as the app containers."""
    return [c for c in maps(pod_spec.get("initContainers")) if c.get("restartPolicy") == "Always"]


def assigned_containers(found: Mapping[str, int]) -> list[ContainerDevices] | None:
    """Returns the field of an assignment; None for one container."""
    return [ContainerDevices(name=name, count=n) for name, n in found.items()] if len(found) > 1 else None


def split(assignment: Assignment) -> Sequence[DevicesOfContainer]:
    """Returns the devices of each container."""
    if assignment.containers is None:
        return (DevicesOfContainer(assignment.container, frozenset(assignment.devices)),)
    found, start = [], 0
    for one in assignment.containers:
        found.append(DevicesOfContainer(one.name, frozenset(assignment.devices[start : start + one.count])))
        start += one.count
    return found
