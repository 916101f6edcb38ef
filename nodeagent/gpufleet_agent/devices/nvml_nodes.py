"""The device nodes by which a container reaches an NVIDIA GPU."""

CONTROL_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""Common to all GPUs of a node. Not every node has all of them: the driver makes some when they are first used."""


def device_nodes(minor: int | None) -> tuple[str, ...]:
    """The nodes of the GPU with this minor number, which needn't be its index. None: NVML doesn't say."""
    return () if minor is None else (f"/dev/nvidia{minor}", *CONTROL_NODES)
