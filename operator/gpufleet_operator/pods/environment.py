"""Environment variables that the operator sets in every container of a pod; the node agent sets others."""

from collections.abc import Mapping
from typing import Any

from gpufleet_api.names import ENV_LEADER_ADDRESS
from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.pods import network


def variables(workload: Workload, spec: WorkloadSpec) -> dict[str, str]:
    if not spec.network.enable_dns_hostnames:
        return {}
    return {ENV_LEADER_ADDRESS: network.leader_address(workload.name, workload.namespace)}


def with_variables(pod_spec: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Returns the pod spec with the variables first in each container, so that the template's can refer to them."""
    added = [{"name": name, "value": value} for name, value in values.items()]
    changed = {
        kind: [{**container, "env": [*added, *(container.get("env") or ())]} for container in pod_spec[kind]]
        for kind in ("initContainers", "containers")
        if added and pod_spec.get(kind)
    }
    return {**pod_spec, **changed}
