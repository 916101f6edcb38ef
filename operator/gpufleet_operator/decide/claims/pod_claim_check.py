"""Checks how a pod with another owner refers to its claim. The messages are for its author."""

from collections.abc import Iterator, Mapping

from gpufleet_api.names import CLAIM_PREFIX, POD_CLAIM
from gpufleet_api.workload import WorkloadSpec
from gpufleet_common.field_errors import forbidden, invalid, required
from gpufleet_operator.model.claims.resource_claim import ClaimReference
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.device_containers import counts
from gpufleet_operator.model.state_types import Limits

_CLAIM = f"spec.resourceClaims[name={POD_CLAIM}]"


def template_name(workload: str) -> str:
    """Returns the name of the ResourceClaimTemplate that the pods of a workload name, and that never exists."""
    return f"{CLAIM_PREFIX}{workload}"


def claim_errors(workload: Workload, spec: WorkloadSpec, pod: Pod, limits: Limits) -> Iterator[str]:
    """Yields the errors of a gated pod with a claim, in the grammar of field.Error."""
    reference = pod.device_claim
    if reference is None:
        return
    if not limits.claims:
        yield forbidden(_CLAIM, "no node has transport DRA: the operator's --transport is DevicePlugin")
        return
    template = template_name(workload.name)
    if reference.template != template:
        field, given = _reference(pod)
        yield invalid(
            f"{_CLAIM}.{field}", given, f"must be resourceClaimTemplateName: {template}, which does not exist"
        )
    for request in pod.device_requests:
        for name in limits.resources.names:
            if request.of(name):
                path = f"{request.path}.resources.limits[{name}]"
                yield invalid(path, request.of(name), "must be omitted: the pod gets its devices by a claim")
    yield from _container_errors(reference, counts(spec), f"of GPUWorkload {workload.name}")


def _container_errors(reference: ClaimReference, wanted: Mapping[str, int], of_workload: str) -> Iterator[str]:
    for name in wanted:
        if name not in reference.containers:
            detail = f"must have the name {POD_CLAIM}: spec.devices {of_workload}"
            yield required(f"spec.containers[name={name}].resources.claims", detail)
    if wanted and not set(reference.containers) <= wanted.keys():
        extra = ", ".join(sorted(set(reference.containers) - wanted.keys()))
        yield invalid(_CLAIM, extra, f"must be used only by {', '.join(wanted)}: spec.devices {of_workload}")
    if not wanted and len(reference.containers) != 1:
        names = ", ".join(reference.containers) or "none"
        yield invalid(
            _CLAIM, names, f"must be used by one app container or sidecar, or spec.devices.containers {of_workload} set"
        )


def _reference(pod: Pod) -> tuple[str, str]:
    claim = pod.device_claim
    if claim is not None and claim.template:
        return "resourceClaimTemplateName", claim.template
    return "resourceClaimName", claim.name if claim is not None else ""
