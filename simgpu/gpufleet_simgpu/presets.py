"""Presets with the sizes of real models, so that placements look as on real nodes."""

import uuid
from dataclasses import dataclass, replace
from types import MappingProxyType

from gpufleet_simgpu.model import MAX_GPUS, SWITCH, SimGpu, SimLinks, SimNode

_AMPERE = 7
"""The first of NVML's architectures that remaps memory rows; older ones retire pages."""
_NAMESPACE = uuid.UUID("7c0e3a7e-3e0b-5a4e-9a55-2f6a1f0c9b11")


@dataclass(frozen=True, slots=True)
class Preset:
    """A GPU model. `switch_links` counts the NVLinks of each GPU to the node's NVSwitches."""

    name: str
    memory_mib: int
    power_watts: int
    idle_watts: int
    architecture: int
    compute_capability: str
    sm_mhz: int
    memory_mhz: int
    switch_links: int = 0
    pcie_generation: int = 4
    hbm: bool = True
    """Reports the temperature of its memory."""
    reserved_mib: int | None = None
    """Memory that the driver reserves, as recorded on such GPUs; None: no recording is known, total / 150 is used."""


PRESETS = MappingProxyType(
    {
        "b200": Preset("NVIDIA B200", 183359, 1000, 140, 10, "10.0", 1965, 3996, 18, 5),
        "h200": Preset("NVIDIA H200", 143771, 700, 76, 9, "9.0", 1980, 3201, 18, 5, reserved_mib=614),
        "h100": Preset("NVIDIA H100 80GB HBM3", 81559, 700, 70, 9, "9.0", 1980, 2619, 18, 5, reserved_mib=479),
        "a100": Preset("NVIDIA A100-SXM4-80GB", 81920, 400, 62, 7, "8.0", 1410, 1593, 12, reserved_mib=869),
        "a100-40": Preset("NVIDIA A100-SXM4-40GB", 40960, 400, 52, 7, "8.0", 1410, 1215, 12, reserved_mib=605),
        "v100": Preset("Tesla V100-PCIE-16GB", 16384, 250, 26, 5, "7.0", 1380, 877, 0, 3),
        "l40s": Preset("NVIDIA L40S", 46068, 350, 33, 8, "8.9", 2520, 9001, hbm=False, reserved_mib=609),
        "l4": Preset("NVIDIA L4", 23034, 72, 13, 8, "8.9", 2040, 6251, hbm=False),
        "t4": Preset("Tesla T4", 15360, 70, 9, 6, "7.5", 1590, 5001, 0, 3, hbm=False, reserved_mib=388),
    }
)


def make_gpu(preset: Preset, *, node: str, index: int, per_numa: int = 4) -> SimGpu:
    """Builds an idle GPU. Its UUID depends only on node name and index, so that it is stable.

    Args:
        preset: The model.
        node: Name of its node.
        index: Its index on the node.
        per_numa: GPUs per NUMA node.
    """
    name = f"{node}/{index}"
    extra = index * 3 % 7
    remaps = preset.architecture >= _AMPERE
    return SimGpu(
        uuid=f"GPU-{uuid.uuid5(_NAMESPACE, name)}",
        name=preset.name,
        pci_bus_id=f"00000000:{0x1B + index:02X}:00.0",
        compute_capability=preset.compute_capability,
        serial=f"{1650000000000 + index}",
        architecture=preset.architecture,
        minor=index,
        numa_node=index // per_numa,
        memory_total_mib=preset.memory_mib,
        memory_used_mib=0,
        memory_reserved_mib=preset.memory_mib // 150 if preset.reserved_mib is None else preset.reserved_mib,
        utilization_percent=0,
        memory_utilization_percent=0,
        encoder_percent=0,
        decoder_percent=0,
        temperature_celsius=30 + extra,
        memory_temperature_celsius=38 + extra if preset.hbm else None,
        power_milliwatts=preset.idle_watts * 1000 + extra * 137,
        power_limit_milliwatts=preset.power_watts * 1000,
        requested_power_limit_milliwatts=preset.power_watts * 1000,
        energy_millijoules=0,
        sm_clock_mhz=345,
        memory_clock_mhz=preset.memory_mhz,
        max_sm_clock_mhz=preset.sm_mhz,
        max_memory_clock_mhz=preset.memory_mhz,
        performance_state=0,
        throttle_reasons=1,
        ecc_enabled=1,
        ecc_corrected=0,
        ecc_uncorrected=0,
        remapped_correctable=0 if remaps else None,
        remapped_uncorrectable=0 if remaps else None,
        remap_pending=0 if remaps else None,
        remap_failed=0 if remaps else None,
        retirement_pending=0 if preset.architecture < _AMPERE else None,
        mig_mode=0 if preset.switch_links else None,
        pcie_generation=preset.pcie_generation,
        pcie_width=16,
        pcie_replays=0,
        links=(SimLinks(SWITCH, preset.switch_links),) if preset.switch_links else (),
    )


def make_node(model: str = "h100", count: int = 8, *, node: str = "node") -> SimNode:
    """Builds a node of `count` idle GPUs of one model.

    Raises:
        ValueError: The preset does not exist, or the count is out of range.
    """
    if model not in PRESETS:
        raise ValueError(f"model {model!r} not found: must be one of {', '.join(PRESETS)}")
    if not 0 <= count <= MAX_GPUS:
        raise ValueError(f"the number of GPUs must be from 0 to {MAX_GPUS}, not {count}")
    return SimNode(gpus=tuple(make_gpu(PRESETS[model], node=node, index=index) for index in range(count)))


def busy(gpu: SimGpu, *, load: int, memory_mib: int, temperature_celsius: int) -> SimGpu:
    """Returns the GPU at a load in percent, with the power that matches it.

    Raises:
        ValueError: The GPU has no power reading: a preset did not build it.
    """
    idle, limit = gpu.power_milliwatts, gpu.power_limit_milliwatts
    if idle is None or limit is None:
        raise ValueError(f"{gpu.uuid} has no power reading")
    return replace(
        gpu,
        utilization_percent=load,
        memory_utilization_percent=load * 6 // 10,
        memory_used_mib=memory_mib,
        temperature_celsius=temperature_celsius,
        power_milliwatts=idle + (limit - idle) * load // 110,
        sm_clock_mhz=gpu.max_sm_clock_mhz if load else 345,
        throttle_reasons=0 if load else 1,
    )
