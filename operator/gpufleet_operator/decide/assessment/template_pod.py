"""Represents a workload's template as a pod, before one is created."""

from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.pods import build
from gpufleet_operator.pods.requests import pod_needs
from gpufleet_operator.pods.traits import pod_traits


def template_pod(snapshot: Snapshot, workload: Workload, spec: WorkloadSpec) -> Pod:
    """Returns a pod as it is before admission. It requests its devices by the extended resource."""
    limits = snapshot.limits
    name = build.pod_name(workload.name, 0, workload.uid)
    body = build.build(workload, spec, 0, name, limits.resources, policy=limits.pod_policy)
    return Pod(
        uid="",
        namespace=workload.namespace,
        name=name,
        resource_version="",
        created=snapshot.now,
        workload_uid=workload.uid,
        needs=pod_needs(body["spec"]),
        traits=pod_traits(workload.namespace, body["metadata"]["labels"], body["spec"]),
    )
