from pathlib import Path

import pytest

from gpufleet_agent.devices.base import MemoryModel, Recovery
from gpufleet_agent.dra.devices import claimable, short_bus_id, slice_device
from gpufleet_agent.dra.driver import pcie_root
from gpufleet_agent.sampling.snapshot import HealthReason
from gpufleet_common.device_ids import device_name
from gpufleet_testing.agent.dra import snapshot_of

UUID = "GPU-6f2c1de4-0000-4000-8000-0000000000AB"


def test_device_is_named_by_its_uuid_as_a_dns_label() -> None:
    assert device_name(UUID) == "gpu-6f2c1de4-0000-4000-8000-0000000000ab"
    assert device_name("MIG-GPU-5/1/0") == "mig-gpu-5-1-0"
    assert len(device_name("GPU-" + "x" * 90)) == 63


def test_entry_has_attributes_capacity_and_the_taint_of_managed_devices() -> None:
    device = snapshot_of(
        3, uuid=UUID, architecture="Hopper", compute_capability="9.0", pci_bus_id="00000000:3B:00.0", numa_node=1
    )
    entry = slice_device(device, "580.65.06", {"0000:3b:00.0": "pci0000:3a"}.get)
    assert entry == {
        "name": device_name(UUID),
        "attributes": {
            "uuid": {"string": UUID},
            "index": {"int": 3},
            "type": {"string": "gpu"},
            "productName": {"string": "NVIDIA H100"},
            "architecture": {"string": "Hopper"},
            "cudaComputeCapability": {"version": "9.0.0"},
            "driverVersion": {"version": "580.65.6"},
            "numaNode": {"int": 1},
            "resource.kubernetes.io/pciBusID": {"string": "0000:3b:00.0"},
            "resource.kubernetes.io/pcieRoot": {"string": "pci0000:3a"},
        },
        "taints": [{"key": "gpufleet.dev/managed", "effect": "NoSchedule"}],
        "allowMultipleAllocations": True,
        "capacity": {
            "memory": {
                "value": "80000Mi",
                "requestPolicy": {"default": "80000Mi", "validRange": {"min": "1Mi", "step": "1Mi"}},
            }
        },
    }


def test_memory_that_the_driver_reserves_is_no_capacity() -> None:
    device = snapshot_of(0, reserved_mib=600)
    assert slice_device(device, None, lambda _: None)["capacity"]["memory"]["value"] == "79400Mi"
    assert claimable(device).memory_mib == 79_400


def test_partition_names_its_parent_and_profile() -> None:
    device = snapshot_of(0, uuid="MIG-1", parent="GPU-1", profile="1g.10gb", memory_model=MemoryModel.NUMA)
    attributes = slice_device(device, None, lambda _: None)["attributes"]
    assert (attributes["type"], attributes["parentUUID"]) == ({"string": "mig"}, {"string": "GPU-1"})
    assert (attributes["migProfile"], attributes["memoryModel"]) == ({"string": "1g.10gb"}, {"string": "NUMA"})


def test_fault_is_a_taint_with_its_code() -> None:
    faults = (HealthReason("XidError", "XID 79", 0, Recovery.RESET), HealthReason("DeviceLost", "gone", 0))
    device = snapshot_of(0, faults=faults)
    taints = slice_device(device, None, lambda _: None)["taints"]
    assert taints[1:] == [{"key": "gpufleet.dev/unhealthy", "value": "XidError", "effect": "NoSchedule"}]
    assert claimable(device).faults == ("XidError", "DeviceLost")
    assert not claimable(device).may_recover
    assert claimable(snapshot_of(0, faults=faults[1:])).may_recover


@pytest.mark.parametrize(("version", "found"), [("580.1", "580.1.0"), ("r580", None), (None, None)])
def test_driver_version_that_is_no_version_is_left_out(version: str | None, found: str | None) -> None:
    attributes = slice_device(snapshot_of(0), version, lambda _: None)["attributes"]
    assert attributes.get("driverVersion") == (None if found is None else {"version": found})


def test_pcie_root_is_the_first_bridge_above_the_device(tmp_path: Path) -> None:
    real = tmp_path / "devices" / "pci0000:3a" / "0000:3a:00.0" / "0000:3b:00.0"
    real.mkdir(parents=True)
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "0000:3b:00.0").symlink_to(real)
    assert pcie_root(short_bus_id("00000000:3B:00.0"), tmp_path / "bus") == "pci0000:3a"
    assert pcie_root("0000:ff:00.0", tmp_path / "bus") is None
