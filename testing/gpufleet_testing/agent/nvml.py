"""What tests of the NVML reader ask of the library itself."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

import pynvml
import pytest

from gpufleet_agent.devices.nvml import NvmlHardware

FailCall = Callable[[str, int], None]
"""Has a single function of NVML return a code from now on, where simulated GPUs fail calls of a field together."""


def call_failer(patch: pytest.MonkeyPatch) -> FailCall:
    """Returns a `FailCall` that is undone with the patch."""

    def fail(function: str, code: int) -> None:
        def failing(*_: object, **__: object) -> NoReturn:
            raise pynvml.NVMLError(code)

        patch.setattr(pynvml, function, failing)

    return fail


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
