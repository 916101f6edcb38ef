"""Environment variables that the operator sets in every container of a pod; the node agent sets others."""

from collections.abc import Mapping
from typing import Any

from gpufleet_api.names import ENV_ATTEMPT, ENV_LEADER_ADDRESS, ENV_REPLICA, ENV_REPLICAS
from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.pods import network


def variables(workload: Workload, spec: WorkloadSpec, replica: int, attempt: int) -> dict[str, str]:
    found = {ENV_REPLICA: str(replica), ENV_REPLICAS: str(spec.replicas), ENV_ATTEMPT: str(attempt)}
    if spec.network.enable_dns_hostnames:
        found[ENV_LEADER_ADDRESS] = network.leader_address(workload.name, workload.namespace)
    return found


def with_variables(pod_spec: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Returns the pod spec with the variables first in each container, so that the template's can refer to them.

    A malformed container stays as it is: the apiserver rejects it with its own message.
    """
    added = [{"name": name, "value": value} for name, value in values.items()]
    changed = {
        kind: [_with_added(container, added) for container in pod_spec[kind]]
        for kind in ("initContainers", "containers")
        if added and isinstance(pod_spec.get(kind), list)
    }
    return {**pod_spec, **changed}


def _with_added(container: Any, added: list[dict[str, str]]) -> Any:
    if not isinstance(container, Mapping) or not isinstance(container.get("env") or [], list):
        return container
    return {**container, "env": [*added, *(container.get("env") or ())]}
