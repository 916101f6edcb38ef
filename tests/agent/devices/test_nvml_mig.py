"""Partitions on the real nvidia-ml-py and simulated GPUs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet_agent.devices.base import DeviceError, DeviceInfo, DeviceLostError, RecoveryAction
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.nvml_mig import capability_nodes, profile
from gpufleet_simgpu.model import SimMig, SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import FailCall
from gpufleet_testing.simulated import Simulated

STUCK = 3_600_000
"""Milliseconds; the call ends when the file changes."""
WHOLE = [gpu.uuid for gpu in make_node("h100", 4).gpus]
MIGS = (
    SimMig("MIG-big", "3g.40gb", 2, 40448, 20000),
    SimMig("MIG-small", "1g.10gb", 1, 9984, 13),
    SimMig("MIG-media", "1g.10gb+me", 9, 9984, 14),
)


@pytest.fixture
def hardware(simulated: Simulated) -> Iterator[NvmlHardware]:
    """Four GPUs, of which the second is divided and the third is to be."""
    simulated.edit(
        lambda node: node.with_gpu(
            1, mig_mode=1, migs=MIGS, minor=6, temperature_celsius=71, ecc_uncorrected=3
        ).with_gpu(2, mig_mode=1)
    )
    opened = NvmlHardware(partitions=True)
    opened.open()
    yield opened
    opened.close()


def identify_all(hardware: NvmlHardware) -> tuple[DeviceInfo, ...]:
    for slot in range(hardware.device_count()):
        with suppress(DeviceError):
            hardware.identify(slot)
    return hardware.devices()


def test_a_divided_gpu_is_its_partitions_and_the_others_are_as_they_were(hardware: NvmlHardware) -> None:
    devices = identify_all(hardware)
    assert [(one.uuid, one.index, one.parent, one.profile) for one in devices] == [
        (WHOLE[0], 0, None, None),
        ("MIG-small", 1, WHOLE[1], "1g.10gb"),
        ("MIG-big", 1, WHOLE[1], "3g.40gb"),
        ("MIG-media", 1, WHOLE[1], "1g.10gb+me"),
        (WHOLE[3], 3, None, None),
    ]
    small = devices[1]
    assert (small.model, small.memory_total_mib) == ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9984)
    assert (small.architecture, small.compute_capability, small.numa_node) == ("Hopper", "9.0", 0)
    assert small.pci_bus_id == make_node("h100", 4).gpus[1].pci_bus_id
    assert small.nodes[0] == "/dev/nvidia6"
    assert small.nvlink_peers == ()
    assert devices[0].nvlink_peers == (WHOLE[3],)


def test_gpu_with_unknown_mig_mode_does_not_block_others(simulated: Simulated, hardware: NvmlHardware) -> None:
    hardware.close()
    simulated.edit(lambda node: node.with_gpu(2, mig_mode=0).with_delay(1, "mig_mode", STUCK))
    slow = NvmlHardware(partitions=True, patience_seconds=0.3)
    slow.open()
    assert slow.device_count() == 4
    for slot in (0, 2, 3):
        slow.identify(slot)
    assert [one.uuid for one in slow.devices()] == [WHOLE[0], WHOLE[2], WHOLE[3]]
    with ThreadPoolExecutor() as pool:
        identity = pool.submit(slow.identify, 1)
        with pytest.raises(TimeoutError):
            identity.result(0.3)
        simulated.edit(lambda node: node.with_delay(1, "mig_mode", 0))
        # It waited for the call: no second thread asks the device.
        with pytest.raises(DeviceError, match="MIG mode reported too late"):
            identity.result(30)
    slow.close()
    slow.open()
    assert len(identify_all(slow)) == 6
    slow.close()


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, 28, 10, 6, 4])
def test_divided_gpu_is_never_whole_when_its_mig_mode_fails(
    simulated: Simulated, hardware: NvmlHardware, code: int
) -> None:
    simulated.edit(lambda node: node.with_fail(1, "mig_mode", code))
    assert [one.uuid for one in identify_all(hardware)] == [WHOLE[0], WHOLE[3]]
    with pytest.raises(DeviceError, match=rf"GPU 1: MIG mode: .*\({code}\)"):
        hardware.identify(1)
    simulated.edit(lambda node: node.restore(1))
    assert len(identify_all(hardware)) == 5, "when the driver is reopened"


def test_divided_gpu_is_never_whole_when_its_partitions_cannot_be_counted(
    hardware: NvmlHardware, fail_call: FailCall
) -> None:
    fail_call("nvmlDeviceGetMaxMigDeviceCount", pynvml.NVML_ERROR_UNKNOWN)
    assert [one.uuid for one in identify_all(hardware)] == [WHOLE[0], WHOLE[3]]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_gpu_without_mig_is_whole(simulated: Simulated, hardware: NvmlHardware, code: int) -> None:
    simulated.edit(lambda node: node.with_fail(0, "mig_mode", code))
    assert WHOLE[0] in [one.uuid for one in identify_all(hardware)]


def test_partition_whose_handle_fails_hides_no_other(
    simulated: Simulated, hardware: NvmlHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.edit(lambda node: node.with_gpu(2, mig_mode=0))
    handle_of = pynvml.nvmlDeviceGetMigDeviceHandleByIndex

    def failing(gpu: object, index: int) -> Any:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
        return handle_of(gpu, index)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigDeviceHandleByIndex", failing)
    assert [one.uuid for one in identify_all(hardware)] == [WHOLE[0], "MIG-big", "MIG-media", *WHOLE[2:]]
    assert hardware.device_count() == 6, "the missing one counts, so that the driver is reopened"


def test_value_of_the_gpu_that_is_not_found_loses_no_partition(simulated: Simulated, hardware: NvmlHardware) -> None:
    identify_all(hardware)
    simulated.edit(lambda node: node.with_fail(1, "temperature_celsius", pynvml.NVML_ERROR_NOT_FOUND))
    reading = hardware.read("MIG-big")
    assert (reading.temperature_celsius, reading.memory_total_mib) == (None, 40448)


def test_without_partitions_the_same_gpu_is_one_device(hardware: NvmlHardware) -> None:
    hardware.close()
    whole = NvmlHardware()
    whole.open()
    assert [one.uuid for one in identify_all(whole)] == WHOLE
    assert whole.read_slow(WHOLE[1]).mig_enabled is True
    whole.close()


def test_memory_and_processes_are_a_partitions_own_and_heat_is_its_gpus(
    simulated: Simulated, hardware: NvmlHardware
) -> None:
    simulated.edit(
        lambda node: node.with_gpu(
            1, processes=(SimProcess(7, 5, gpu_instance=2), SimProcess(8, 5, gpu_instance=2), SimProcess(9, 5))
        )
    )
    identify_all(hardware)
    big = hardware.read("MIG-big")
    assert (big.memory_total_mib, big.memory_used_mib, big.temperature_celsius) == (40448, 20000, 71)
    assert (big.utilization_percent, big.power_milliwatts, big.sm_clock_mhz) == (None, None, None)
    slow = hardware.read_slow("MIG-big")
    assert (slow.process_count, slow.ecc_uncorrected, slow.mig_enabled) == (2, 3, None)
    assert hardware.read_slow("MIG-small").process_count == 0


def test_remapped_rows_of_a_divided_gpu_are_not_reported(simulated: Simulated, hardware: NvmlHardware) -> None:
    """As real GPUs: XIDs 63 and 64 and ECC errors remain."""
    simulated.edit(lambda node: node.with_gpu(1, remap_failed=1, remap_pending=1, ecc_uncorrected=3))
    identify_all(hardware)
    slow = hardware.read_slow("MIG-big")
    assert (slow.row_remap_failed, slow.row_remap_pending, slow.remapped_uncorrectable) == (None, None, None)
    assert (slow.ecc_uncorrected, slow.unreadable) == (3, ())
    whole = NvmlHardware()
    whole.open()
    identify_all(whole)
    assert whole.read_slow(WHOLE[1]).row_remap_failed is None
    assert whole.read(WHOLE[1]).utilization_percent is None
    whole.close()


def test_remapping_of_a_divided_gpu_is_seen_by_its_xids(simulated: Simulated, hardware: NvmlHardware) -> None:
    identify_all(hardware)
    assert hardware.wait_event(0.01) is None
    simulated.edit(lambda node: node.with_xid(1, 63).with_xid(1, 64))
    events = [event for event in (hardware.wait_event(1) for _ in range(6)) if event is not None]
    assert {event.uuid for event in events} == {one.uuid for one in MIGS}
    assert {(event.code, event.fault) for event in events} == {(63, False), (64, True)}


def test_recovery_action_is_that_of_all_partitions(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_gpu(1, recovery_action=4))
    identify_all(hardware)
    actions = [hardware.read(one.uuid).recovery_action for one in MIGS]
    assert actions == [RecoveryAction.DRAIN_AND_RESET] * 3
    assert hardware.read(WHOLE[3]).recovery_action is None


def test_missing_partition_and_partitions_of_lost_gpu_are_lost(simulated: Simulated, hardware: NvmlHardware) -> None:
    identify_all(hardware)
    simulated.edit(lambda node: node.with_gpu(1, migs=MIGS[:2]))
    hardware.read("MIG-big")
    with pytest.raises(DeviceLostError, match="the partition is gone"):
        hardware.read("MIG-media")
    simulated.edit(lambda node: node.lose(1))
    for uuid in ("MIG-big", "MIG-small"):
        with pytest.raises(DeviceLostError):
            hardware.read(uuid)
    assert hardware.read(WHOLE[3]).memory_total_mib


def test_a_lost_gpu_counts_as_whole_and_hides_no_other(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.lose(1))
    assert [one.uuid for one in identify_all(hardware)] == [WHOLE[0], WHOLE[3]]
    assert hardware.device_count() == 3


def test_xid_is_reported_for_its_partition_or_all_of_its_gpu(simulated: Simulated, hardware: NvmlHardware) -> None:
    identify_all(hardware)
    assert hardware.wait_event(0.01) is None
    simulated.edit(lambda node: node.with_xid(1, 48, (1, 0)).with_xid(1, 79).with_xid(3, 31))
    told = [hardware.wait_event(1) for _ in range(5)]
    assert [(one.uuid, one.code) for one in told if one] == [
        ("MIG-small", 48),
        ("MIG-big", 79),
        ("MIG-small", 79),
        ("MIG-media", 79),
        (WHOLE[3], 31),
    ]
    assert hardware.wait_event(0.01) is None, "each GPU reports each event once, regardless of its partitions"


def test_the_nodes_that_let_a_container_use_a_partition(tmp_path: Path) -> None:
    table = tmp_path / "mig-minors"
    table.write_text("config 1\nmonitor 2\ngpu6/gi1/access 30\ngpu6/gi1/ci0/access 31\ngpu6/gi2/access 39\n")
    assert capability_nodes(6, (1, 0), table) == ("/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31")
    assert capability_nodes(6, (2, 0), table) == ("/dev/nvidia-caps/nvidia-cap39",)
    assert capability_nodes(None, (1, 0), table) == ()
    assert capability_nodes(6, (1, 0), tmp_path / "missing") == ()


@settings(deadline=None)
@given(
    st.sampled_from(["NVIDIA A100-SXM4-80GB", "NVIDIA H100 NVL"]),
    st.builds("{}g.{}gb{}".format, st.integers(1, 7), st.integers(5, 96), st.sampled_from(["", "+me", "+gfx"])),
)
def test_the_profile_is_read_from_the_name(model: str, kind: str) -> None:
    assert profile(f"{model} MIG {kind}") == kind
    assert profile(model) is None


def test_event_of_several_partitions_survives_reopening(simulated: Simulated, hardware: NvmlHardware) -> None:
    identify_all(hardware)
    hardware.wait_event(0.01)  # from here on events are listened for
    simulated.edit(lambda node: node.with_xid(1, 79))
    first = hardware.wait_event(5)
    hardware.close()
    hardware.open()
    rest = [hardware.wait_event(0.01), hardware.wait_event(0.01)]
    assert {event.uuid for event in (first, *rest) if event is not None} == {one.uuid for one in MIGS}
    assert hardware.wait_event(0.01) is None
