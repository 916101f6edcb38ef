from typing import Any

from gpufleet_agent.kube.resource_slices import parse_slices


def resource_slice(*devices: object) -> dict[str, Any]:
    """A ResourceSlice of resource.k8s.io/v1, as NVIDIA's driver publishes it."""
    return {"spec": {"driver": "gpu.nvidia.com", "nodeName": "node-1", "pool": {"name": "node-1"}, "devices": devices}}


def device(name: str, **attributes: object) -> dict[str, Any]:
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}}


def test_uuids_are_attributes_with_or_without_a_domain() -> None:
    mig = {"gpu.nvidia.com/uuid": {"string": "MIG-1"}, "parentUUID": {"string": "GPU-1"}, "index": {"int": 3}}
    slices = [
        resource_slice(device("gpu-0", uuid={"string": "GPU-0"}, type={"string": "gpu"})),
        resource_slice({"name": "gpu-1-mig-9", "attributes": mig}),
    ]
    assert parse_slices(slices) == {
        ("gpu.nvidia.com", "node-1", "gpu-0"): {"GPU-0"},
        ("gpu.nvidia.com", "node-1", "gpu-1-mig-9"): {"MIG-1", "GPU-1"},
    }


def test_entries_without_a_uuid_and_malformed_ones_are_left_out() -> None:
    odd = [resource_slice(device("a", uuid={"int": 5}), device("b"), "c", {"name": "d", "attributes": []}), {}, 7]
    assert parse_slices([*odd, {"spec": {"devices": None}}]) == {}
