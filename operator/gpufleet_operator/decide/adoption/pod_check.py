"""Checks whether a pod with another owner asks for what its workload reserves. The messages are for its author."""

from collections.abc import Iterator, Mapping

from gpufleet_api.workload import WorkloadSpec
from gpufleet_common.field_errors import invalid, required, unsupported
from gpufleet_operator.decide.claims.pod_claim_check import claim_errors
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.device_containers import counts
from gpufleet_operator.model.pod_state.owner import DeviceRequest
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.pods.limits.size_limits import rule_errors


def pod_errors(workload: Workload, spec: WorkloadSpec, pod: Pod, limits: Limits) -> Iterator[str]:
    """Yields the errors of a gated pod, in the grammar of field.Error."""
    yield from rule_errors(pod.traits, pod.needs, "spec")
    if pod.scheduler not in limits.pod_policy.schedulers:
        yield unsupported("spec.schedulerName", pod.scheduler, limits.pod_policy.schedulers)
    if pod.device_claim is not None:
        yield from claim_errors(workload, spec, pod, limits)
        return
    resource, of_workload = limits.resources.name_for(spec.devices), f"of GPUWorkload {workload.name}"
    yield from _other_mode(spec, pod, limits.resources, of_workload)
    asking = [request for request in pod.device_requests if request.of(resource)]
    for request in asking:
        if request.init:
            detail = "must be in an app container or in a sidecar: an init container ends before the others start"
            yield invalid(_path(request, resource), request.of(resource), detail)
    named = counts(spec)
    if named:
        yield from _named(named, asking, resource, of_workload)
    elif not asking:
        detail = f"must be {spec.devices.count}, in the container that uses the GPUs: spec.devices.count {of_workload}"
        yield required(f"spec.containers[].resources.limits[{resource}]", detail)
    elif len(asking) > 1:
        names = ", ".join(request.container for request in asking)
        detail = f"several containers request devices ({names}): name them in spec.devices.containers {of_workload}"
        yield invalid(_path(asking[1], resource), asking[1].of(resource), detail)
    elif asking[0].of(resource) != spec.devices.count:
        detail = f"must be {spec.devices.count}: spec.devices.count {of_workload}"
        yield invalid(_path(asking[0], resource), asking[0].of(resource), detail)


def _other_mode(spec: WorkloadSpec, pod: Pod, resources: Resources, of_workload: str) -> Iterator[str]:
    resource, mode = resources.name_for(spec.devices), spec.devices.mode
    for request in pod.device_requests:
        for name in resources.names:
            if name != resource and request.of(name):
                detail = f"must be omitted: spec.devices.mode {of_workload} is {mode}, whose resource is {resource}"
                yield invalid(_path(request, name), request.of(name), detail)


def _named(named: Mapping[str, int], asking: list[DeviceRequest], resource: str, of_workload: str) -> Iterator[str]:
    given = {request.container: request for request in asking}
    for name, count in named.items():
        if name not in given:
            detail = f"must be {count}: spec.devices {of_workload}"
            yield required(f"spec.containers[name={name}].resources.limits[{resource}]", detail)
    for name, request in given.items():
        wanted = named.get(name)
        if wanted is None:
            detail = f"must be omitted: spec.devices {of_workload} names {', '.join(named)}"
            yield invalid(_path(request, resource), request.of(resource), detail)
        elif wanted != request.of(resource):
            detail = f"must be {wanted}: spec.devices {of_workload}"
            yield invalid(_path(request, resource), request.of(resource), detail)


def _path(request: DeviceRequest, resource: str) -> str:
    return f"{request.path}.resources.limits[{resource}]"
