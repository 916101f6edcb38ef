import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_agent.changes import Changes
from gpufleet_agent.metrics.counters import Counters
from gpufleet_agent.plugin.admission import Admission
from gpufleet_agent.podresources.client import ListingError
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.podresources.poller import Poller
from gpufleet_api.names import RESOURCE

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
    def __init__(self) -> None:
        self.lister = FakeLister()
        self.holdings = Holdings(RESOURCE)
        self.admission = Admission(expiry_seconds=10, settle_seconds=0.1)
        self.changes = Changes()
        self.registry = CollectorRegistry()
        self.poller = Poller(
            self.lister,
            self.holdings,
            self.admission.quiet,
            self.changes,
            Counters(self.registry, "test"),
            rng=random.Random(1),  # noqa: S311 - jitter
        )


def test_it_lists_every_three_seconds_or_so_and_out_of_step(in_virtual_time: InVirtualTime) -> None:
    async def scenario() -> None:
        rig = Rig()
        task = asyncio.create_task(rig.poller.run(lambda: None))
        await asyncio.sleep(300)
        task.cancel()
        times = rig.lister.times
        gaps = {round(later - earlier, 3) for earlier, later in pairwise(times)}
        assert len(times) == pytest.approx(100, abs=10)
        assert len(gaps) > 50
        assert min(gaps) >= 2.4
        assert max(gaps) <= 3.6

    in_virtual_time(scenario())


def test_after_an_allocation_it_lists_at_once_but_not_before_the_kubelet_has_entered_the_devices(
    in_virtual_time: InVirtualTime,
) -> None:
    async def scenario() -> None:
        rig = Rig()
        task = asyncio.create_task(rig.poller.run(lambda: None))
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        await rig.admission.begin()
        rig.poller.poke()
        await asyncio.sleep(5)
        assert len(rig.lister.times) == 1, "an allocation is in flight"
        rig.admission.take()
        await asyncio.sleep(1)
        task.cancel()
        assert rig.lister.times[1] == pytest.approx(began + 5.1)

    in_virtual_time(scenario())


def test_news_are_told_and_an_absent_kubelet_leaves_the_last_list_standing(
    in_virtual_time: InVirtualTime, listed: Any
) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.lister.listing = (listed("a", "GPU-0"),)
        await rig.poller.poll()
        assert rig.changes.version == 1
        await rig.poller.poll()
        assert rig.changes.version == 1
        rig.lister.fails = True
        await rig.poller.poll()
        assert "GPU-0" in rig.holdings.holders([])
        assert rig.registry.get_sample_value("gpufleet_agent_listing_failures_total", {"caller": "Poll"}) == 1
        assert rig.registry.get_sample_value("gpufleet_agent_listing_seconds_count", {"caller": "Poll"}) == 2
        assert not rig.admission.in_flight
        async with asyncio.timeout(1), rig.admission.quiet():
            pass

    in_virtual_time(scenario())
