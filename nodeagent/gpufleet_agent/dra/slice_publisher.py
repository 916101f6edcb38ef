"""Keeps the node's ResourceSlice in the cluster as the devices are.

The kubelet deletes all slices of the node when it starts, and those of a driver that is away for 30 seconds. So the
slice is watched, and written again whenever it is missing or was changed by something else.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from gpufleet_agent.kube.api import KubeError, SliceWriter
from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_agent.kube.resource_slices import PublishedSlice
from gpufleet_agent.runtime.backoff import backoff
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import DRA_DRIVER

log = structlog.get_logger(__name__)

MAX_NAME = 253
MAX_BACKOFF_SECONDS = 30.0
MIN_INTERVAL_SECONDS = 0.2
"""Between two writes, so that a flood of changes is written as one."""
CHECK_SECONDS = 30.0
"""Time after which the loop iterates without a change."""

Devices = Sequence[dict[str, Any]]


def slice_name(node: str) -> str:
    return f"{node[: MAX_NAME - len(DRA_DRIVER) - 1]}-{DRA_DRIVER}"


@dataclass(frozen=True, slots=True)
class LastSlice:
    """The slice as it was written last."""

    devices: Devices
    uid: str
    generation: int


def must_write(devices: Devices, last: LastSlice | None, found: PublishedSlice | None) -> bool:
    """Returns whether the slice in the cluster is not what it should be.

    Args:
        devices: What it should list.
        last: The last write of this process; None: there was none.
        found: The slice in the cluster; None: it does not exist.
    """
    if found is None or last is None:
        return True
    # The apiserver may drop fields whose features are off, so the content is compared with what was written.
    return (found.uid, found.generation) != (last.uid, last.generation) or list(devices) != list(last.devices)


def slice_spec(node: str, devices: Devices, found: PublishedSlice | None) -> dict[str, Any]:
    """Builds the spec of the slice, in a later generation of the pool than what was found."""
    generation = 1 if found is None else found.pool_generation + 1
    return {
        "driver": DRA_DRIVER,
        "nodeName": node,
        "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
        "devices": list(devices),
    }


class SlicePublisher:
    """Writes the slice.

    Args:
        api: Access to it.
        node: Name of the node.
        devices: Returns the entries of the devices; None: they are not known yet.
        devices_changed: Notified when the result of `devices` changes.
        rng: Jitter of waits.
    """

    def __init__(
        self,
        api: SliceWriter,
        node: str,
        devices: Callable[[], Devices | None],
        devices_changed: VersionSignal,
        rng: random.Random,
    ) -> None:
        self._api = api
        self._node = node
        self._name = slice_name(node)
        self._devices = devices
        self._changes = devices_changed
        self._rng = rng
        self._read = False
        """Whether the slice was looked for once."""
        self._found: PublishedSlice | None = None
        self._last: LastSlice | None = None
        self._failures = 0

    @property
    def published(self) -> bool:
        """Whether the slice in the cluster is this process's."""
        return self._last is not None and self._found is not None

    async def run(self, beat: Callable[[], None]) -> None:
        """Writes whenever the slice is not what it should be; calls `beat` in each iteration."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                beat()
                seen = self._changes.version
                wait = await self.step()
                if wait is not None:
                    await asyncio.sleep(wait)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._changes.wait(seen)
                await asyncio.sleep(MIN_INTERVAL_SECONDS)

    async def step(self) -> float | None:
        """Writes the slice if it must be; returns the seconds until a failed write is tried again."""
        devices = self._devices()
        if devices is None or not self._read or not must_write(devices, self._last, self._found):
            return None
        try:
            written = await self._api.apply_slice(self._name, slice_spec(self._node, devices, self._found))
        except (KubeError, ObjectFormatError) as error:
            self._failures += 1
            wait = backoff(self._failures, self._rng.random(), first=1.0, longest=MAX_BACKOFF_SECONDS)
            log.warning("ResourceSlice not written", error=str(error), next_try_seconds=round(wait, 1))
            return wait
        self._failures = 0
        self._found, self._last = written, LastSlice(devices, written.uid, written.generation)
        log.info("ResourceSlice written", name=self._name, devices=len(devices), generation=written.pool_generation)
        return None

    async def _follow(self) -> None:
        """Watches the slice, without end."""
        while True:
            try:
                async with aclosing(self._api.watch_slice(self._name)) as versions:
                    async for version in versions:
                        self._observe(version)
            except (KubeError, ObjectFormatError) as error:
                log.warning("watch of ResourceSlice failed", error=str(error))
                await asyncio.sleep(self._rng.uniform(1.0, 5.0))

    def _observe(self, version: PublishedSlice | None) -> None:
        """Records a version, unless it is older than what is known."""
        known = self._found
        if version is not None and known is not None and version.resource_version <= known.resource_version:
            return
        self._found, first, self._read = version, not self._read, True
        if first or self._last is None or must_write(self._last.devices, self._last, version):
            self._changes.notify()
