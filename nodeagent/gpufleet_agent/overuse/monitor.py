"""Checks the memory usage of shared devices every few seconds, and reports overuse by events and in the status."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from gpufleet_agent.kube.model import PodEvent
from gpufleet_agent.overuse.container_usage import ContainerUsage, container_usages, held_processes
from gpufleet_agent.overuse.episodes import OveruseEpisode, OveruseEpisodes
from gpufleet_agent.overuse.memory_usage import HolderKey, MemoryUsage, PodLookup, memory_usages, relevant_processes
from gpufleet_agent.overuse.memory_windows import MemoryWindows, ObservedMemory
from gpufleet_agent.podresources.holdings import Holders
from gpufleet_agent.processes.pod_lookup import pods_of_process
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)

CHECK_SECONDS = 5.0
"""As often as processes are listed."""

MEMORY_OVERUSE = "MemoryOveruse"
"""Reason of the event."""


class OveruseMonitor:
    """Detects holders that use more memory than promised.

    Args:
        snapshot: Returns the devices as sampled last.
        holders: Returns the holders of each device, with their promises.
        record: Records an event.
        changes: Notified when an episode begins or ends.
        clock: Returns the time in seconds since the epoch.
        stale_seconds: Age from which a sample does not show current usage.
        pods: Looks up the pods of a process.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], NodeSnapshot],
        holders: Callable[[], Holders],
        record: Callable[[PodEvent], None],
        changes: VersionSignal,
        clock: Callable[[], float],
        stale_seconds: float,
        pods: PodLookup = pods_of_process,
    ) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._record = record
        self._changes = changes
        self._clock = clock
        self._stale_seconds = stale_seconds
        self._pods = pods
        self._episodes = OveruseEpisodes()
        self._windows = MemoryWindows()
        self.containers: tuple[ContainerUsage, ...] = ()
        """As of the last check."""
        self.usages: tuple[MemoryUsage, ...] = ()
        """As of the last check."""
        self.memory: Mapping[HolderKey, ObservedMemory] = {}
        """Current and maximum use of each holder, as of the last check."""
        self.begun = 0
        """Number of episodes since the start."""

    @property
    def active(self) -> tuple[OveruseEpisode, ...]:
        return self._episodes.active

    async def run(self, beat: Callable[[], None]) -> None:
        """Checks without end; calls `beat` in each iteration."""
        while True:
            beat()
            await self.check()
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), CHECK_SECONDS))

    async def check(self) -> None:
        devices, holders = self._snapshot().devices, self._holders()
        stale = self._stale_seconds
        pids = relevant_processes(devices, holders, stale) | held_processes(devices, holders, stale)
        # In a thread: several hundred processes take tens of milliseconds, and a kernel that moves cgroups blocks.
        owners = await asyncio.to_thread(_look_up, pids, self._pods) if pids else {}
        self.usages = memory_usages(devices, holders, owners.get, stale)
        self.containers = container_usages(devices, holders, owners.get, stale)
        wall = self._clock()
        self._windows.record(self.usages, now=asyncio.get_running_loop().time(), wall=wall)
        self.memory = self._windows.observed()
        begun, ended = self._episodes.check(self.usages, wall)
        for episode in begun:
            self.begun += 1
            log.warning("memory overuse began", **_facts(episode))
            self._record(_event(episode))
        for episode in ended:
            log.info("memory overuse ended", **_facts(episode))
        if begun or ended:
            self._changes.notify()


def _look_up(pids: Iterable[int], pods: PodLookup) -> Mapping[int, tuple[str, ...] | None]:
    return {pid: pods(pid) for pid in pids}


def _facts(episode: OveruseEpisode) -> dict[str, object]:
    usage = episode.usage
    return {
        "holder": str(usage.key),
        "uuid": usage.uuid,
        "promised_mib": usage.promised_mib,
        "used_mib": episode.used_mib,
    }


def _event(episode: OveruseEpisode) -> PodEvent:
    usage = episode.usage
    since = timestamps.seconds(timestamps.from_epoch(episode.since))
    return PodEvent(
        namespace=usage.key.namespace,
        pod=usage.key.pod,
        pod_uid=usage.pod_uid,
        reason=MEMORY_OVERUSE,
        message=f"Container {usage.key.container} uses {episode.used_mib} MiB of GPU {usage.index} ({usage.uuid}), "
        f"but was promised {usage.promised_mib} MiB",
        episode=f"{usage.uuid}/{since}",
    )
