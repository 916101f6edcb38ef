"""ResourceClaims and pods that use them, as a user or the operator writes them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import SLEEP, container, plain_pod, pod_spec, written_out

JsonObject = dict[str, Any]

DRIVER = "gpu.gpufleet.dev"
API = "/apis/resource.k8s.io/v1"
SLICES = f"{API}/resourceslices"
CLASSES = f"{API}/deviceclasses"
OWN_CLASS = "by-hand.e2e"
"""A DeviceClass of the tests."""
TRANSPORT_LABEL = "gpufleet.dev/transport"


def claims(namespace: str) -> str:
    return f"{API}/namespaces/{namespace}/resourceclaims"


def device_class(name: str = OWN_CLASS, **spec: object) -> JsonObject:
    """Builds a DeviceClass with all devices of the driver, as an administrator can."""
    selectors = [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]
    head = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name}}
    return {**head, "spec": {"selectors": selectors, **spec}}


def resource_claim(
    name: str, uuid: str, *, memory: str = "", tolerates: bool = True, of_class: str = OWN_CLASS
) -> JsonObject:
    """Builds a claim of one device.

    Args:
        name: Its name.
        uuid: The only acceptable device.
        memory: Amount for a share, such as `10Gi`; empty: the whole device.
        tolerates: Whether it tolerates the taint of managed devices.
        of_class: Its DeviceClass; only the operator may create claims of the driver's own.
    """
    expression = f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].uuid == "{uuid}"'
    exactly: JsonObject = {"deviceClassName": of_class, "selectors": [{"cel": {"expression": expression}}]}
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


class PodSpecFields(TypedDict, total=False):
    """Arguments of `plain_pod` that other builders pass on; those in camel case are fields of the spec."""

    annotations: Mapping[str, str]
    nodeName: str
    nodeSelector: Mapping[str, str]
    terminationGracePeriodSeconds: int


def claiming_pod(
    name: str, claim: str, *, command: tuple[str, ...] = SLEEP, **spec: Unpack[PodSpecFields]
) -> JsonObject:
    """Builds a pod whose container has the devices of a claim."""
    containers = [container(command=command, resources={"claims": [{"name": "gpu"}]})]
    return plain_pod(name, containers=containers, resourceClaims=[{"name": "gpu", "resourceClaimName": claim}], **spec)


@contextmanager
def own_class(fleet: Fleet) -> Iterator[None]:
    """Lets an administrator claim devices by hand while the block runs."""
    fleet.api.create(CLASSES, device_class())
    try:
        yield
    finally:
        fleet.api.delete(f"{CLASSES}/{OWN_CLASS}")


def claim_by_hand(fleet: Fleet, namespace: str, name: str, uuid: str, **pod: Unpack[PodSpecFields]) -> None:
    """Creates a claim of `own_class` for one device, and a pod of the same name that has it."""
    fleet.api.create(claims(namespace), resource_claim(name, uuid))
    fleet.api.create(pods(namespace), claiming_pod(name, name, **pod))


def claiming_spec(workload: str) -> JsonObject:
    """Builds the spec of a pod of another owner, with the gate and the claim of a workload."""
    return written_out(pod_spec(), workload, count=1, transport="DRA")


def slice_of(fleet: Fleet, node: str) -> JsonObject:
    """Returns the ResourceSlice of a node."""
    found = [one for one in fleet.api.list(SLICES) if one["spec"]["driver"] == DRIVER]
    own: list[JsonObject] = [one for one in found if one["spec"]["nodeName"] == node]
    assert own, f"{node} has no slice"
    return own[0]


def publishes(fleet: Fleet, node: str, not_uid: str = "") -> None:
    """Asserts that a node has a slice of all of its devices, with another uid."""
    found = slice_of(fleet, node)
    uuids = {device["attributes"]["uuid"]["string"] for device in found["spec"]["devices"]}
    assert uuids == set(fleet.gpus[node].uuids)
    assert found["metadata"]["uid"] != not_uid, "the slice of before"


def serves_claims(fleet: Fleet, node: str) -> None:
    """Asserts that all devices of a node can be given to claims."""
    publishes(fleet, node)
    status = fleet.telemetry(node)["status"]
    assert status["transport"] == "DRA"
    assert not [device["uuid"] for device in status["devices"] if "withheld" in device]
