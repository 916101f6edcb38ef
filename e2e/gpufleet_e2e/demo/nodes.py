"""The two nodes of the demo: eight simulated GPUs each, all different in load, memory and temperature.

The numbers make the picks predictable: some devices are idle and cool, some loaded and hot, others in between.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """Load of one GPU."""

    memory_used_mib: int
    utilization_percent: int
    temperature_celsius: int
    power_watts: int


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """GPUs of one node: one model, each device with its own load."""

    preset: str
    """Name of the model in `gpufleet_simgpu.presets`."""
    loads: tuple[GpuLoad, ...]


H100 = NodeProfile(
    preset="h100",
    loads=(
        GpuLoad(612, 0, 34, 71),
        GpuLoad(2_310, 4, 38, 96),
        GpuLoad(9_120, 12, 45, 168),
        GpuLoad(14_880, 22, 49, 231),
        GpuLoad(24_410, 35, 57, 322),
        GpuLoad(33_050, 48, 63, 410),
        GpuLoad(5_540, 8, 41, 134),
        GpuLoad(640, 1, 36, 74),
    ),
)

A100 = NodeProfile(
    preset="a100",
    loads=(
        GpuLoad(590, 0, 31, 58),
        GpuLoad(3_870, 6, 37, 88),
        GpuLoad(11_260, 17, 44, 149),
        GpuLoad(19_730, 28, 52, 203),
        GpuLoad(41_500, 61, 66, 297),
        GpuLoad(7_410, 10, 40, 112),
        GpuLoad(1_120, 2, 33, 65),
        GpuLoad(28_640, 43, 59, 254),
    ),
)

NODE_PROFILES = (H100, A100)
"""In the order of the cluster's nodes."""
