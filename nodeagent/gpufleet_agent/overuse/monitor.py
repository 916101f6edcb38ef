"""Looks at the use of shared devices every few seconds, and tells whoever should know."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from gpufleet_agent.kube.model import PodEvent
from gpufleet_agent.overuse.episodes import OveruseEpisode, OveruseEpisodes
from gpufleet_agent.overuse.memory_usage import MemoryUsage, PodLookup, memory_usages, relevant_processes
from gpufleet_agent.overuse.pod_lookup import pods_of_process
from gpufleet_agent.podresources.holdings import Holders
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""As often as processes are listed."""

MEMORY_OVERUSE = "MemoryOveruse"


class OveruseMonitor:
    """Knows who is over.

    Args:
        snapshot: Returns the sampler's snapshot.
        holders: Who holds which device, and what they were promised.
        tell: Where events go.
        changes: Told when an episode begins or ends.
        clock: Now, in seconds since the epoch.
        stale_seconds: A sample that is older says nothing of who uses what now.
        pods: Which pods a process runs in.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], NodeSnapshot],
        holders: Callable[[], Holders],
        tell: Callable[[PodEvent], None],
        changes: VersionSignal,
        clock: Callable[[], float],
        stale_seconds: float,
        pods: PodLookup = pods_of_process,
    ) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._tell = tell
        self._changes = changes
        self._clock = clock
        self._stale_seconds = stale_seconds
        self._pods = pods
        self._episodes = OveruseEpisodes()
        self.uses: tuple[MemoryUsage, ...] = ()
        """As of the last look."""
        self.begun = 0
        """OveruseEpisodes since the start."""

    @property
    def standing(self) -> tuple[OveruseEpisode, ...]:
        """OveruseEpisodes that go on."""
        return self._episodes.standing

    async def run(self, beat: Callable[[], None]) -> None:
        """Look forever; calls `beat` each time round."""
        while True:
            beat()
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once."""
        devices, holders = self._snapshot().devices, self._holders()
        wanted = relevant_processes(devices, holders, self._stale_seconds)
        # In a thread: some hundred processes take tens of milliseconds, and a kernel that moves cgroups makes one wait.
        owners = await asyncio.to_thread(_owners, wanted, self._pods) if wanted else {}
        self.uses = memory_usages(devices, holders, owners.get, self._stale_seconds)
        begun, ended = self._episodes.look(self.uses, self._clock())
        for overuse in begun:
            self.begun += 1
            log.warning("memory over-used", **_facts(overuse))
            self._tell(_event(overuse))
        for overuse in ended:
            log.info("memory over-used no longer", **_facts(overuse))
        if begun or ended:
            self._changes.notify()


def _owners(processes: Iterable[int], pods: PodLookup) -> Mapping[int, tuple[str, ...] | None]:
    return {process: pods(process) for process in processes}


def _facts(overuse: OveruseEpisode) -> dict[str, object]:
    use = overuse.use
    return {"holder": str(use.key), "uuid": use.uuid, "promised_mib": use.promised_mib, "used_mib": overuse.used_mib}


def _event(overuse: OveruseEpisode) -> PodEvent:
    use = overuse.use
    since = timestamps.seconds(timestamps.from_epoch(overuse.since))
    return PodEvent(
        namespace=use.key.namespace,
        pod=use.key.pod,
        pod_uid=use.pod_uid,
        reason=MEMORY_OVERUSE,
        message=f"container {use.key.container} uses {overuse.used_mib} MiB of GPU {use.index} ({use.uuid}), "
        f"and was promised {use.promised_mib} MiB",
        episode=f"{use.uuid}/{since}",
    )
