"""Checks device nodes and writes the CDI file in a separate thread, and caches what it found.

A file system can hang (a network mount, a failing disk), and a call that hangs cannot be cancelled. On the event loop
it would block everything: device lists, probes and samples. So the file system is used here only, in one scan after
the other, and the event loop uses the result of the last scan.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from gpufleet_agent.plugin.inject.cdi import CdiFile, NodeLookup
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.runtime.driver_thread import DriverThread
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0
"""Timeout of a scan. The kubelet admits no other pod while it waits for Allocate."""

DeviceNodes = dict[str, tuple[tuple[str, str], ...]]
"""Device nodes by UUID, as `NodeLookup` returns them."""


@dataclass(frozen=True, slots=True)
class DeviceFileScan:
    nodes: DeviceNodes
    error: OSError | None = None
    """Why the CDI file cannot be written."""


class DeviceFiles:
    """Puts the files in place that a container with any of the devices needs.

    Args:
        devices: Returns the devices of the node, without I/O.
        driver_root: Directory that contains the driver's `dev`.
        make_file: Creates the CDI file of given device nodes; None: the agent does not write it.
        changes: Notified when a device becomes allocatable, or stops being so.
        patience_seconds: Timeout of a scan.
    """

    def __init__(
        self,
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        driver_root: Path,
        make_file: Callable[[NodeLookup], CdiFile] | None,
        changes: VersionSignal,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._devices = devices
        self._driver_root = driver_root
        self._make_file = make_file
        self._changes = changes
        self._patience_seconds = patience_seconds
        self._worker: DriverThread | None = None
        self._scan: asyncio.Future[DeviceFileScan] | None = None
        self._deadline = 0.0
        """Of the scan, in seconds of the loop's clock."""
        self._overdue = False
        """Whether the scan has missed it."""
        self.nodes: DeviceNodes = {}
        """The existing nodes of every device that was scanned; none if its own node is missing."""
        self.ready: frozenset[str] = frozenset()
        """Devices that a container can get, according to the last scan."""
        self.problem = ""
        """Why no device is ready; empty: those that are not ready have no node of their own."""

    async def prepare(self) -> None:
        """Scans the device nodes and updates the CDI file. One scan at a time.

        Cancelling the caller does not stop the scan, and its result is cached.

        Raises:
            OSError: The CDI file cannot be written, or the file system does not respond in time (TimeoutError).
        """
        running = self._scan
        if running is not None:
            # It may have begun before the change that the caller must see. The next scan does not, and serves all
            # callers that wait for it.
            await self._wait(running)
        scan = self._scan or self._begin()
        await self._wait(scan)
        error = scan.result().error
        if error is not None:
            raise error

    async def keep(self, beat: Callable[[], None], check_seconds: float) -> None:
        """Prepares when the devices change, and regularly, because nothing signals that a device node comes or goes.

        Args:
            beat: Called in each iteration.
            check_seconds: How often.
        """
        logged = ""
        while True:
            beat()
            version = self._changes.version
            problem = ""
            try:
                await self.prepare()
            except OSError as error:
                problem = str(error)
                if problem != logged:
                    log.error("writing CDI file failed, devices not offered", error=problem)  # noqa: TRY400 - all
            logged = problem
            with suppress(TimeoutError):
                async with asyncio.timeout(check_seconds):
                    await self._changes.wait(version)

    async def close(self) -> None:
        """Removes the CDI file after a running write, even if the caller is cancelled.

        Raises:
            OSError: The file cannot be removed.
        """
        if self._worker is None:
            return
        removed = self._worker.submit(self._remove)
        stopped = self._worker.stop()
        await removed
        await stopped

    def _begin(self) -> asyncio.Future[DeviceFileScan]:
        if self._worker is None:
            self._worker = DriverThread("device-files")
        devices = self._devices()
        loop = asyncio.get_running_loop()
        scan = self._scan = self._worker.submit(lambda: self._scan_and_write(devices))
        self._deadline, self._overdue = loop.time() + self._patience_seconds, False
        timer = loop.call_at(self._deadline, self._time_out, scan)
        scan.add_done_callback(lambda scan: self._finish(scan, timer))
        return scan

    async def _wait(self, scan: asyncio.Future[DeviceFileScan]) -> None:
        await asyncio.wait({scan}, timeout=max(0.0, self._deadline - asyncio.get_running_loop().time()))
        if not scan.done():
            raise TimeoutError(self._timeout_message)

    def _scan_and_write(self, devices: tuple[AdvertisedDevice, ...]) -> DeviceFileScan:
        nodes = {device.uuid: self._existing(device.nodes) for device in devices}
        try:
            if self._make_file is not None:
                self._make_file(lambda uuid: nodes[uuid]).write(devices)
        except OSError as error:
            return DeviceFileScan(nodes, error)
        return DeviceFileScan(nodes)

    def _existing(self, paths: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        hosts = ((path, self._driver_root / path.lstrip("/")) for path in paths)
        found = tuple((path, str(host)) for path, host in hosts if host.exists())
        # The first one is the device's own. Without it, those that all devices have in common are of no use.
        return found if found and found[0][0] == paths[0] else ()

    def _remove(self) -> None:
        if self._make_file is not None:
            self._make_file(lambda _: ()).remove()

    @property
    def _timeout_message(self) -> str:
        return f"the file system did not respond within {self._patience_seconds:g} s"

    def _time_out(self, scan: asyncio.Future[DeviceFileScan]) -> None:
        # After a delay of the loop, timer and result may be due at the same time: the scan was in time then.
        if not scan.done():
            self._overdue = True
            self._withdraw(self._timeout_message)

    def _withdraw(self, problem: str) -> None:
        self.problem = problem
        self._store(self.nodes, frozenset())

    def _finish(self, scan: asyncio.Future[DeviceFileScan], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._scan = None
        if self._overdue:
            # Ignored: on a disk that is always too slow, devices would come and go with each scan.
            return
        error = scan.exception()
        if error is not None:
            self._withdraw(str(error))
            return
        result = scan.result()
        self.problem = str(result.error or "")
        ready = () if result.error else (uuid for uuid, nodes in result.nodes.items() if nodes)
        self._store(result.nodes, frozenset(ready))

    def _store(self, nodes: DeviceNodes, ready: frozenset[str]) -> None:
        changed = ready != self.ready or nodes.keys() != self.nodes.keys()
        missing, before = ({uuid for uuid, found in each.items() if not found} for each in (nodes, self.nodes))
        self.nodes, self.ready = nodes, ready
        if missing != before and missing and self._make_file is not None:
            root = str(self._driver_root)
            log.warning("device node missing, devices not offered", devices=sorted(missing), driver_root=root)
        if changed:
            self._changes.notify()
