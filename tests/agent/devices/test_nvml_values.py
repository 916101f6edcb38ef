import pynvml

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_testing.simulated import Simulated


def test_device_nodes_go_by_minor_number_and_not_by_index(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(0, minor=5).with_fail(1, "minor", pynvml.NVML_ERROR_NOT_SUPPORTED))
    hardware = NvmlHardware()
    hardware.open()
    try:
        hardware.device_count()
        for slot in range(2):
            hardware.identify(slot)
        first, second = hardware.devices()
        assert first.nodes[:3] == ("/dev/nvidia5", "/dev/nvidiactl", "/dev/nvidia-uvm")
        assert second.nodes == (), "nothing is guessed"
    finally:
        hardware.close()
