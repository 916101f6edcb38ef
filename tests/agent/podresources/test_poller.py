import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.kube.resource_slices import ClaimableDevice
from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.types import UnmanagedAllocation
from gpufleet_agent.podresources.claimed_devices import ClaimedDevices
from gpufleet_agent.podresources.client import ListingError
from gpufleet_agent.podresources.completeness import SETTLE_SECONDS, CompletenessCheck
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import ClaimedDevice, Listing
from gpufleet_agent.podresources.poller import PodResourcesPoller
from gpufleet_agent.podresources.terminating_pods import TerminatingPods
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.objects import assignment, listed
from gpufleet_testing.agent.virtual_time import in_virtual_time

InVirtualTime = Callable[[Coroutine[Any, Any, None]], None]


class FakeLister:
    def __init__(self) -> None:
        self.listing: Listing = ()
        self.fails = False
        self.times: list[float] = []

    async def list(self, timeout_seconds: float) -> Listing:
        self.times.append(asyncio.get_running_loop().time())
        if self.fails:
            raise ListingError("away")
        return self.listing


class Rig:
    def __init__(self, socket: Path, *, sees_processes: bool = False) -> None:
        self.lister = FakeLister()
        self.holdings = Holdings(RESOURCE)
        self.assignments: tuple[Assignment, ...] = ()
        self.slice_reads = 0
        self.living: frozenset[str] = frozenset()
        """Pods with a process, by UID."""
        # The kubelet has run for an hour.
        self.completeness = CompletenessCheck(socket, clock=lambda: socket.stat().st_mtime + 3600)
        self.in_flight = InFlightAllocation(expiry_seconds=10, settle_seconds=0.1)
        self.changes = VersionSignal()
        self.registry = CollectorRegistry()
        self.poller = PodResourcesPoller(
            self.lister,
            self.holdings,
            self.completeness,
            claims=ClaimedDevices(self.claimable_devices, lambda: asyncio.get_running_loop().time()),
            terminating_pods=TerminatingPods(lambda uids: self.living & uids, dict, sees_processes=sees_processes),
            assignments=lambda: self.assignments,
            idle=self.in_flight.idle,
            changes=self.changes,
            counters=Instruments(self.registry, "test"),
            rng=random.Random(1),  # noqa: S311 - jitter
        )

    async def claimable_devices(self) -> dict[ClaimableDevice, frozenset[str]]:
        self.slice_reads += 1
        return {("gpu.example.com", "pool", "gpu-0"): frozenset({"GPU-7"})}


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    """Replaces the kubelet's socket: only its age matters."""
    (tmp_path / "kubelet.sock").touch()
    return tmp_path / "kubelet.sock"


def restart(socket: Path) -> None:
    """The kubelet recreates its socket."""
    (socket.parent / "new").touch()
    (socket.parent / "new").replace(socket)


@in_virtual_time
async def test_it_lists_every_three_seconds_or_so_and_out_of_step(socket: Path) -> None:
    rig = Rig(socket)
    task = asyncio.create_task(rig.poller.run(lambda: None))
    await asyncio.sleep(300)
    task.cancel()
    times = rig.lister.times
    gaps = {round(later - earlier, 3) for earlier, later in pairwise(times)}
    assert len(times) == pytest.approx(100, abs=10)
    assert len(gaps) > 50
    assert min(gaps) >= 2.4
    assert max(gaps) <= 3.6


@in_virtual_time
async def test_poll_follows_an_allocation_once_the_kubelet_has_recorded_it(
    socket: Path,
) -> None:
    rig = Rig(socket)
    task = asyncio.create_task(rig.poller.run(lambda: None))
    await asyncio.sleep(0.5)
    began = asyncio.get_running_loop().time()
    await rig.in_flight.begin()
    rig.poller.poll_soon()
    await asyncio.sleep(5)
    assert len(rig.lister.times) == 1, "an allocation is in flight"
    rig.in_flight.take_result()
    await asyncio.sleep(1)
    task.cancel()
    assert rig.lister.times[1] == pytest.approx(began + 5.1)


@in_virtual_time
async def test_changes_are_notified_and_the_last_list_outlives_the_kubelet(socket: Path) -> None:
    rig = Rig(socket)
    rig.lister.listing = (listed("a", "GPU-0"),)
    await rig.poller.poll()
    assert rig.changes.version == 1
    await rig.poller.poll()
    assert rig.changes.version == 1
    rig.lister.fails = True
    await rig.poller.poll()
    assert "GPU-0" in rig.holdings.holders(())
    assert rig.registry.get_sample_value("gpufleet_agent_podresources_list_failures_total", {"caller": "Poll"}) == 1
    assert (
        rig.registry.get_sample_value("gpufleet_agent_podresources_list_duration_seconds_count", {"caller": "Poll"})
        == 2
    )
    assert not rig.in_flight.active
    async with asyncio.timeout(1), rig.in_flight.idle():
        pass


@in_virtual_time
async def test_failing_lists_remove_no_holder_for_hours(socket: Path) -> None:
    rig = Rig(socket)
    rig.lister.listing = (listed("a", "GPU-0"),)
    task = asyncio.create_task(rig.poller.run(lambda: None))
    await asyncio.sleep(1)
    rig.lister.fails = True
    await asyncio.sleep(2 * 3600)
    task.cancel()
    assert "GPU-0" in rig.holdings.holders(())


@in_virtual_time
async def test_restarted_kubelet_frees_no_device_until_it_has_its_pods(socket: Path) -> None:
    rig = Rig(socket)
    rig.lister.listing = (listed("a", "GPU-0"), listed("b", "GPU-1"))
    task = asyncio.create_task(rig.poller.run(lambda: None))
    await asyncio.sleep(1)
    before, listed_at = rig.changes.version, rig.holdings.listed_at
    restart(socket)
    rig.lister.listing = (listed("b", "GPU-1"),)
    await asyncio.sleep(SETTLE_SECONDS - 2)
    assert set(rig.holdings.holders(())) == {"GPU-0", "GPU-1"}
    assert (rig.changes.version, rig.holdings.listed_at) == (before, listed_at)
    await asyncio.sleep(12)
    task.cancel()
    assert set(rig.holdings.holders(())) == {"GPU-1"}


@pytest.mark.parametrize("answer", [None, UnmanagedAllocation(("GPU-0",))])
@in_virtual_time
async def test_lists_of_allocations_replace_polls_under_constant_allocation(
    socket: Path, answer: UnmanagedAllocation | None
) -> None:
    rig = Rig(socket)
    loop = asyncio.get_running_loop()
    beats: list[float] = []
    task = asyncio.create_task(rig.poller.run(lambda: beats.append(loop.time())))
    await asyncio.sleep(0)
    for number in range(2500):
        ticket = await rig.in_flight.begin()
        went = await rig.poller.accept((listed(f"pod-{number}", "GPU-0"),), loop.time())
        assert went[0].key.pod == f"pod-{number}"
        if answer is not None:
            rig.in_flight.set_result(ticket, answer)
            rig.in_flight.take_result()
        await asyncio.sleep(0.05)
    task.cancel()
    assert max(later - earlier for earlier, later in pairwise(beats)) < 10
    assert beats[-1] > 1110
    assert rig.holdings.listed_at == pytest.approx(loop.time(), abs=0.1)


def test_departed_pod_is_in_the_list_of_an_allocation_until_it_ended(socket: Path) -> None:
    async def run() -> None:
        rig = Rig(socket, sees_processes=True)
        rig.assignments = (assignment("old", "GPU-0"),)
        rig.lister.listing = (listed("old", "GPU-0"),)
        assert await rig.poller.poll()
        rig.lister.listing, rig.living = (listed("new"),), frozenset({"uid-old"})
        for _ in range(2):
            shown = await rig.poller.list_for_allocation(1.0)
            assert [(one.key.pod, one.terminating) for one in shown] == [("new", False), ("old", True)]
        rig.living = frozenset()
        assert [one.key.pod for one in await rig.poller.list_for_allocation(1.0)] == ["new"]

    asyncio.run(run())


@in_virtual_time
async def test_claimed_device_is_held_after_the_slices_were_read_once(socket: Path) -> None:
    rig = Rig(socket)
    claimed = ClaimedDevice(("gpu.example.com", "pool", "gpu-0"))
    rig.lister.listing = (replace(listed("by-claim"), claimed=(claimed,)),)
    task = asyncio.create_task(rig.poller.run(lambda: None))
    await asyncio.sleep(60)
    task.cancel()
    assert [holder.key.pod for holder in rig.holdings.holders(())["GPU-7"]] == ["by-claim"]
    assert rig.slice_reads == 1
    shown = await rig.poller.list_for_allocation(1.0)
    assert shown[0].of("gpu.example.com") == {"GPU-7"}, "the plugin sees it as held"
