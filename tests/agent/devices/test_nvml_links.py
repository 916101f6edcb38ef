"""NVLink on the real nvidia-ml-py and simulated GPUs, as it comes and goes while the agent runs."""

from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.nvml_links import far_ends
from gpufleet_simgpu.model import SimLinks
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

if TYPE_CHECKING:
    from collections.abc import Iterator


UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


@pytest.fixture
def impatient(simulated: Simulated) -> "Iterator[NvmlHardware]":
    """Asks for the links with each slow read."""
    opened = NvmlHardware(links_seconds=0)
    opened.open()
    for slot in range(opened.device_count()):
        opened.identify(slot)
    yield opened
    opened.close()


def peers(hardware: NvmlHardware) -> list[int]:
    return [len(device.nvlink_peers) for device in hardware.devices()]


def test_links_that_fail_are_noticed_while_the_driver_stays_open(simulated: Simulated, impatient: NvmlHardware) -> None:
    assert peers(impatient) == [3, 3, 3, 3]
    simulated.edit(lambda node: node.with_gpu(1, links=()))
    for uuid in UUIDS:
        impatient.read_slow(uuid)
    assert peers(impatient) == [2, 0, 2, 2]


def test_links_are_not_asked_for_with_every_slow_read(simulated: Simulated, hardware: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_gpu(1, links=()))
    hardware.read_slow(UUIDS[1])
    assert peers(hardware) == [3, 3, 3, 3]


def test_what_a_link_does_not_tell_is_not_taken_for_gone(simulated: Simulated, impatient: NvmlHardware) -> None:
    simulated.edit(lambda node: node.with_fail(1, "nvlink", pynvml.NVML_ERROR_UNKNOWN))
    impatient.read_slow(UUIDS[1])
    assert peers(impatient) == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (pynvml.NVML_ERROR_UNKNOWN, 2),
        (pynvml.NVML_ERROR_INVALID_ARGUMENT, 1),
        (pynvml.NVML_ERROR_GPU_IS_LOST, 1),
    ],
)
def test_one_link_that_errs_does_not_hide_those_after_it(
    simulated: Simulated, hardware: NvmlHardware, monkeypatch: pytest.MonkeyPatch, code: int, found: int
) -> None:
    simulated.edit(lambda node: node.with_gpu(0, links=(SimLinks(1, 2), SimLinks(2, 1))))
    state = pynvml.nvmlDeviceGetNvLinkState

    def second_fails(handle: object, link: int) -> Any:
        if link == 1:
            raise pynvml.NVMLError(code)
        return state(handle, link)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetNvLinkState", second_fails)
    assert hardware.devices()
    assert len(far_ends(pynvml.nvmlDeviceGetHandleByIndex(0))) == found
