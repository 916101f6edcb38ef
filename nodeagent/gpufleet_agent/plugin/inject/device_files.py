"""Device nodes and the CDI file: looked at and written in a thread of its own, remembered for all who ask.

A file system can hang (a network mount, a disk that is dying), and a call that does so can't be cancelled. On the event
loop it would stop everything: the lists that the kubelet gets, the probes, the samples. So it happens here, one look
after the other, and what the event loop answers is what the last look saw.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from gpufleet_agent.plugin.inject.cdi import CdiFile, NodeLookup
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.driver_thread import DriverThread

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0
"""How long a look may take. The kubelet admits no other pod while it waits for Allocate."""

DeviceNodes = dict[str, tuple[tuple[str, str], ...]]
"""Device nodes by UUID, as `NodeLookup` gives them."""


@dataclass(frozen=True, slots=True)
class DeviceFileScan:
    """What a look saw."""

    nodes: DeviceNodes
    error: OSError | None = None
    """Why the file can't be written."""


class DeviceFiles:
    """Has everything in place that a container with any of the devices needs.

    Args:
        devices: The devices of the node, from memory.
        driver_root: Where the driver's `dev` directory is.
        make_file: Makes the CDI file of given device nodes; None: somebody else writes it.
        changes: Notified when a device can be given to a container that couldn't, or the other way round.
        patience_seconds: How long a look may take.
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
        self._look: asyncio.Future[DeviceFileScan] | None = None
        self._due = 0.0
        """When the look's time is over, by the loop's clock."""
        self._overdue = False
        """Whether it was before the look was."""
        self.nodes: DeviceNodes = {}
        """Of every device that was looked at: the nodes that exist; none when its own is missing."""
        self.in_place: frozenset[str] = frozenset()
        """The devices that a container can be given, as far as the last look could tell."""
        self.problem = ""
        """Why that is none of them; empty: one that isn't among them has no node of its own."""

    async def prepare(self) -> None:
        """Look at the device nodes, and make the CDI file say what they are. One look at a time.

        Whoever is cancelled just leaves: the look goes on, and what it sees is remembered.

        Raises:
            OSError: The CDI file can't be written, or the file system doesn't answer in time (TimeoutError).
        """
        under_way = self._look
        if under_way is not None:
            # It may have begun before whatever it is that we must see. The next one did not: it does for all who wait.
            await self._in_time(under_way)
        look = self._look or self._begin()
        await self._in_time(look)
        error = look.result().error
        if error is not None:
            raise error

    async def keep(self, beat: Callable[[], None], look_seconds: float) -> None:
        """Prepare when the devices change, and now and then, for nobody tells when a device node comes or goes.

        Args:
            beat: Called each time round.
            look_seconds: How often.
        """
        said = ""
        while True:
            beat()
            version = self._changes.version
            problem = ""
            try:
                await self.prepare()
            except OSError as error:
                problem = str(error)
                if problem != said:
                    log.error("devices not offered: the CDI file can't be written", error=problem)  # noqa: TRY400 - all
            said = problem
            with suppress(TimeoutError):
                async with asyncio.timeout(look_seconds):
                    await self._changes.wait(version)

    async def close(self) -> None:
        """Take the CDI file away, after what is still being written. Cancelled or not, it will go.

        Raises:
            OSError: It can't be removed.
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
        look = self._look = self._worker.submit(lambda: self._put_in_place(devices))
        self._due, self._overdue = loop.time() + self._patience_seconds, False
        timer = loop.call_at(self._due, self._wait_no_longer, look)
        look.add_done_callback(lambda look: self._looked(look, timer))
        return look

    async def _in_time(self, look: asyncio.Future[DeviceFileScan]) -> None:
        await asyncio.wait({look}, timeout=max(0.0, self._due - asyncio.get_running_loop().time()))
        if not look.done():
            raise TimeoutError(self._too_slow)

    def _put_in_place(self, devices: tuple[AdvertisedDevice, ...]) -> DeviceFileScan:
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
        # The first one is the device's own; those that all devices have in common are of no use alone.
        return found if found and found[0][0] == paths[0] else ()

    def _remove(self) -> None:
        if self._make_file is not None:
            self._make_file(lambda _: ()).remove()

    @property
    def _too_slow(self) -> str:
        return f"the file system doesn't answer within {self._patience_seconds:g} s"

    def _wait_no_longer(self, look: asyncio.Future[DeviceFileScan]) -> None:
        # A loop that was held up may see both at once: the look was in time.
        if not look.done():
            self._overdue = True
            self._withdraw(self._too_slow)

    def _withdraw(self, problem: str) -> None:
        self.problem = problem
        self._remember(self.nodes, frozenset())

    def _looked(self, look: asyncio.Future[DeviceFileScan], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._look = None
        if self._overdue:
            # It doesn't count: on a disk that is always too slow, devices would come and go with each look.
            return
        error = look.exception()
        if error is not None:
            self._withdraw(str(error))
            return
        seen = look.result()
        self.problem = str(seen.error or "")
        named = () if seen.error else (uuid for uuid, nodes in seen.nodes.items() if nodes)
        self._remember(seen.nodes, frozenset(named))

    def _remember(self, nodes: DeviceNodes, in_place: frozenset[str]) -> None:
        changed = in_place != self.in_place or nodes.keys() != self.nodes.keys()
        missing, before = ({uuid for uuid, found in each.items() if not found} for each in (nodes, self.nodes))
        self.nodes, self.in_place = nodes, in_place
        if missing != before and missing and self._make_file is not None:
            root = str(self._driver_root)
            log.warning("devices not offered: no device node", devices=sorted(missing), driver_root=root)
        if changed:
            self._changes.notify()
