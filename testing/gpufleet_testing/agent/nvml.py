"""What tests of the NVML reader ask of the library itself."""

import asyncio

import pynvml

from gpufleet_agent.devices.nvml import NvmlHardware


def nvml_is_closed() -> bool:
    """Whether no NVML handle is open any more; closes one that is."""
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError_Uninitialized:
        return True
    return False


async def until_listening(hardware: NvmlHardware) -> None:
    """Waits until the event set has every device: NVML reports no XID that came before."""
    async with asyncio.timeout(20):
        while True:
            devices, events = hardware.devices(), hardware._events  # noqa: SLF001 - tests look inside
            registered = frozenset() if events is None else events._registered  # noqa: SLF001 - as above
            if devices and {info.uuid for info in devices} <= registered:
                return
            await asyncio.sleep(0.01)
