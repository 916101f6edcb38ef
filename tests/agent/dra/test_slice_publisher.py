"""The slice in the cluster follows the devices, and comes back when it is deleted."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gpufleet_agent.dra import slice_publisher
from gpufleet_agent.dra.slice_publisher import LastSlice, SlicePublisher, must_write, slice_name, slice_spec
from gpufleet_agent.kube.resource_slices import PublishedSlice
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.dra import NODE, DraObjectApi

DEVICES = [{"name": "gpu-0"}]
FOUND = PublishedSlice("u", 3, 10, 7)
LAST = LastSlice(DEVICES, "u", 3)


@pytest.mark.parametrize(
    ("devices", "last", "found", "expected"),
    [
        pytest.param(DEVICES, LAST, FOUND, False, id="as written"),
        pytest.param(DEVICES, LAST, None, True, id="deleted"),
        pytest.param(DEVICES, None, FOUND, True, id="of an earlier process"),
        pytest.param([], LAST, FOUND, True, id="other devices"),
        pytest.param(DEVICES, LAST, PublishedSlice("u", 4, 11, 7), True, id="changed by something else"),
        pytest.param(DEVICES, LAST, PublishedSlice("v", 3, 11, 7), True, id="another object"),
    ],
)
def test_slice_is_written_when_it_differs(
    devices: list[dict[str, Any]], last: LastSlice | None, found: PublishedSlice | None, expected: bool
) -> None:
    assert must_write(devices, last, found) is expected


def test_each_write_is_a_later_generation_of_the_pool() -> None:
    assert slice_spec(NODE, DEVICES, FOUND) == {
        "driver": "gpu.gpufleet.dev",
        "nodeName": NODE,
        "pool": {"name": NODE, "generation": 8, "resourceSliceCount": 1},
        "devices": DEVICES,
    }
    assert slice_spec(NODE, DEVICES, None)["pool"]["generation"] == 1


def test_name_of_the_slice_is_never_too_long() -> None:
    assert slice_name(NODE) == "node-1-gpu.gpufleet.dev"
    assert len(slice_name("n" * 253)) == 253


class Published:
    def __init__(self) -> None:
        self.api = DraObjectApi()
        self.devices: list[dict[str, Any]] | None = DEVICES
        self.changes = VersionSignal()
        self.publisher = SlicePublisher(
            self.api,
            NODE,
            lambda: self.devices,
            self.changes,
            random.Random(1),  # noqa: S311 - jitter
        )


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Published]:
    monkeypatch.setattr(slice_publisher, "MIN_INTERVAL_SECONDS", 0.001)
    made = Published()
    task = asyncio.create_task(made.publisher.run(lambda: None))
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_deleted_slice_comes_back_and_changes_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as one:
        assert (await one.api.until_slice(1))["devices"] == DEVICES
        await one.api.wipe_slice()
        assert (await one.api.until_slice(2))["devices"] == DEVICES
        one.devices = [{"name": "gpu-0", "taints": []}]
        one.changes.notify()
        assert (await one.api.until_slice(3))["devices"] == one.devices
        one.changes.notify()
        await asyncio.sleep(0.02)
        assert one.api.applied == 3
        assert one.publisher.published


async def test_write_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_publisher, "MAX_BACKOFF_SECONDS", 0.01)
    async with running(monkeypatch) as one:
        one.api.slice_failures = 3
        await one.api.until_slice(1)


async def test_nothing_is_published_before_devices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as one:
        one.devices = None
        one.changes.notify()
        await asyncio.sleep(0.02)
        assert one.api.applied <= 1
