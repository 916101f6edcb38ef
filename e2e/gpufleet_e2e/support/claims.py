"""ResourceClaims and pods that use them, as a user or the operator writes them."""

from typing import Any

from gpufleet_e2e.support.manifests import SLEEP, container, plain_pod

JsonObject = dict[str, Any]

DRIVER = "gpu.gpufleet.dev"
API = "/apis/resource.k8s.io/v1"
SLICES = f"{API}/resourceslices"
TRANSPORT_LABEL = "gpufleet.dev/transport"


def claims(namespace: str) -> str:
    return f"{API}/namespaces/{namespace}/resourceclaims"


def resource_claim(name: str, uuid: str, *, memory: str = "", tolerates: bool = True) -> JsonObject:
    """Builds a claim of one device.

    Args:
        name: Its name.
        uuid: The only acceptable device.
        memory: Amount for a share, such as `10Gi`; empty: the whole device.
        tolerates: Whether it tolerates the taint of managed devices.
    """
    expression = f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].uuid == "{uuid}"'
    exactly: JsonObject = {"deviceClassName": DRIVER, "selectors": [{"cel": {"expression": expression}}]}
    if memory:
        exactly["capacity"] = {"requests": {"memory": memory}}
    if tolerates:
        exactly["tolerations"] = [{"key": "gpufleet.dev/managed", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }


def claiming_pod(name: str, claim: str, *, command: tuple[str, ...] = SLEEP, **spec: Any) -> JsonObject:
    """Builds a pod whose container has the devices of a claim."""
    return plain_pod(
        name,
        **{
            "containers": [container(command=command, resources={"claims": [{"name": "gpu"}]})],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}],
            **spec,
        },
    )
