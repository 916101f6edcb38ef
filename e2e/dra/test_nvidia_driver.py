"""NVIDIA's DRA driver serves a node: gpufleet measures, picks and claims. A driver of the tests poses as it."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.faults.nvidia_driver import nvidia_driver
from gpufleet_e2e.faults.nvidia_driver_server import DRIVER, VARIABLE
from gpufleet_e2e.support.api import NODES, TELEMETRY, JsonObject, pods
from gpufleet_e2e.support.claims import CLASSES, SLICES, TRANSPORT_LABEL, claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

BY_HAND = "nvidia-by-hand.e2e"
SECONDS = 30


@pytest.fixture(scope="module")
def served(fleet: Fleet) -> Iterator[str]:
    """The node that the other driver serves."""
    node = fleet.nodes[1]
    fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {TRANSPORT_LABEL: "DRA"}}})
    fleet.install(values={"transport": "PerNode", "dra": {"driver": DRIVER}})
    eventually(partial(_measures, fleet, node), within=60)
    with nvidia_driver(fleet, node):
        yield node
    fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {TRANSPORT_LABEL: None}}})
    fleet.restore_later()


def test_reserved_devices_are_claimed_from_the_other_driver(
    namespace: TestNamespace, fleet: Fleet, served: str
) -> None:
    """Reservation, claim, container and telemetry name the same devices; gpufleet publishes no slice of its own."""
    namespace.apply(gpuworkload("one", count=3, node=served))
    namespace.wait_ready("one", within=60)
    reserved = namespace.reservation("one")
    uuids = set(reserved["devices"])
    assert (reserved["resource"], len(uuids)) == (DRIVER, 3)
    pod = namespace.pod("one")["metadata"]["name"]
    claim = fleet.api.get(f"{claims(namespace.name)}/gpufleet-{pod}")
    requests = [one["exactly"] for one in claim["spec"]["devices"]["requests"]]
    assert {one["deviceClassName"] for one in requests} == {DRIVER}
    assert not any("tolerations" in one for one in requests)
    names = {f"gpu-{index}": uuid for index, uuid in enumerate(fleet.gpus[served].uuids)}
    allocated = {names[one["device"]] for one in claim["status"]["allocation"]["devices"]["results"]}
    assert (allocated, _given(fleet, namespace, pod, "main")) == (uuids, uuids)
    eventually(lambda: _held(fleet, served, dict.fromkeys(uuids, pod)), within=SECONDS)
    drivers = {one["spec"]["driver"] for one in fleet.api.list(SLICES) if one["spec"]["nodeName"] == served}
    assert drivers == {DRIVER}


def test_each_container_gets_its_own_devices_of_the_other_driver(
    namespace: TestNamespace, fleet: Fleet, served: str
) -> None:
    """Mechanism: a claim with a request for each container, which the driver prepares for that container only.

    An app container and a sidecar get devices, and a second app container gets none.
    """
    listed = [{"name": "main", "count": 2}, {"name": "server", "count": 1}]
    template = pod_spec(container(), container("log"), initContainers=[container("server", restartPolicy="Always")])
    devices = {"count": 3, "containers": listed}
    namespace.apply(gpuworkload("parts", node=served, devices=devices, template=template))
    namespace.wait_ready("parts", within=60)
    picked = namespace.workload("parts")["status"]["placements"][0]["devices"]
    pod = namespace.pod("parts")["metadata"]["name"]
    given = {name: _given(fleet, namespace, pod, name) for name in ("server", "main", "log")}
    assert given == {"server": set(picked[:1]), "main": set(picked[1:]), "log": set()}
    eventually(lambda: _held(fleet, served, dict.fromkeys(picked, pod)), within=SECONDS)
    assert fleet.operator_metric("gpufleet_operator_fleet_inconsistencies") == 0


def test_device_of_a_claim_by_hand_counts_as_held(namespace: TestNamespace, fleet: Fleet, served: str) -> None:
    """Mechanism: PodResources names pool and device, the slice its UUID."""
    uuid = fleet.gpus[served].uuids[4]
    fleet.api.create(CLASSES, _class_by_hand())
    expression = f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].uuid == "{uuid}"'
    exactly = {"deviceClassName": BY_HAND, "selectors": [{"cel": {"expression": expression}}]}
    spec = {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}
    head = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "foreign"}}
    fleet.api.create(claims(namespace.name), {**head, "spec": spec})
    main = container(resources={"claims": [{"name": "gpu"}]})
    claimed = [{"name": "gpu", "resourceClaimName": "foreign"}]
    fleet.api.create(pods(namespace.name), plain_pod("foreign", containers=[main], resourceClaims=claimed))
    namespace.wait_running("foreign", within=SECONDS)
    eventually(lambda: _held(fleet, served, {uuid: "foreign"}), within=SECONDS)
    namespace.apply(gpuworkload("waits", uuids=(uuid,)))
    assert "in use" in namespace.wait_condition("waits", "Placed", "False", "NoDevicesAvailable")
    fleet.api.delete(f"{pods(namespace.name)}/foreign")
    namespace.wait_ready("waits", within=90)
    fleet.api.delete(f"{CLASSES}/{BY_HAND}")


def _class_by_hand() -> JsonObject:
    selectors = [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]
    head = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": BY_HAND}}
    return {**head, "spec": {"selectors": selectors}}


def _measures(fleet: Fleet, node: str) -> None:
    status = fleet.telemetry(node)["status"]
    assert status["transport"] == "DRA"
    assert not [one for one in fleet.api.list(SLICES) if one["spec"]["driver"] == "gpu.gpufleet.dev"]


def _given(fleet: Fleet, namespace: TestNamespace, pod: str, name: str) -> set[str]:
    """Returns the devices that the driver gave to a container."""
    environment = fleet.collector.environment(namespace.name, pod, name)
    return {value for variable, value in environment.items() if variable.startswith(VARIABLE)}


def _held(fleet: Fleet, node: str, expected: dict[str, str]) -> None:
    devices = fleet.api.get(f"{TELEMETRY}/{node}")["status"]["devices"]
    found = {one["uuid"]: {held["pod"] for held in one.get("allocatedTo", [])} for one in devices}
    assert {uuid: found[uuid] for uuid in expected} == {uuid: {pod} for uuid, pod in expected.items()}
