"""Which reservations an allocation uses: fresh or cached ones."""

import asyncio

import pytest

from gpufleet_agent.plugin import allocator
from gpufleet_agent.podresources.client import ListingError
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.plugins import PluginRig, running_plugin, serving_plugin


def read_outcome(rig: PluginRig) -> list[str]:
    outcomes = ("Fresh", "Late", "Cached")
    return [name for name in outcomes if rig.count("gpufleet_agent_reservation_reads_total", outcome=name)]


async def test_recent_reservation_is_read_without_a_watch_event(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-5"))
        assert rig.own.assignments == ()
        assert await kubelet.admit("train-0", 1) == {"GPU-5"}
        assert read_outcome(rig) == ["Fresh"]


@pytest.mark.usefixtures("short_patience")
async def test_without_apiserver_the_cache_serves_all_pods(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-0"))
        await rig.own.refresh()
        rig.api.away = True
        assert await kubelet.admit("train-0", 1) == {"GPU-0"}
        assert await kubelet.admit("bare", 1) == {"GPU-1"}
        assert read_outcome(rig) == ["Cached"]


async def test_slow_apiserver_does_not_delay_a_cached_reservation(
    kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        allocator, "READ_PATIENCE_SECONDS", 3600
    )  # a pod that waited for the read would not be admitted
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-5"))
        await rig.own.refresh()
        rig.api.delay_seconds = 3600
        assert await kubelet.admit("train-0", 1) == {"GPU-5"}
        assert read_outcome(rig) == ["Cached"]


async def test_slow_read_is_awaited_before_a_pod_counts_as_unmanaged(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-5"))
        rig.api.delay_seconds = 0.6
        assert await kubelet.admit("train-0", 1) == {"GPU-5"}
        assert read_outcome(rig) == ["Late"]


@pytest.mark.usefixtures("short_patience")
async def test_before_the_first_read_every_pod_is_rejected(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet) as rig:
        rig.api.away = True
        rig.on_ready = lambda: asyncio.sleep(0)
        await kubelet.until(kubelet.serving)
        with pytest.raises(Exception, match="ReservationsUnknown"):
            await kubelet.admit("train-0", 1)
        rig.api.away = False
        assert await kubelet.admit("bare", 1) == {"GPU-0"}


async def test_without_the_kubelets_list_every_pod_is_rejected(
    kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_plugin(kubelet) as rig:

        async def fail(timeout_seconds: float) -> None:
            raise ListingError("the kubelet is busy")

        monkeypatch.setattr(rig.lister, "list", fail)
        with pytest.raises(Exception, match=r"PodResourcesUnavailable: .* the kubelet is busy"):
            await kubelet.admit("bare", 1)
        assert rig.count("gpufleet_agent_podresources_list_failures_total", caller="Allocation") == 1


async def test_failed_read_is_retried_before_a_pod_counts_as_unmanaged(
    kubelet: FakeKubelet,
) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-5"))
        rig.api.away = True
        before = rig.api.reads
        asyncio.get_running_loop().call_later(0.7, setattr, rig.api, "away", False)
        assert await kubelet.admit("train-0", 1) == {"GPU-5"}
        assert read_outcome(rig) == ["Late"]
        assert 3 <= rig.api.reads - before <= 8


@pytest.mark.usefixtures("short_patience")
async def test_wait_for_a_fresh_read_is_limited(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.away = True
        began = asyncio.get_running_loop().time()
        assert await kubelet.admit("bare", 1) == {"GPU-0"}
        waited = asyncio.get_running_loop().time() - began
        assert allocator.READ_PATIENCE_SECONDS <= waited < allocator.READ_PATIENCE_SECONDS + 1.5
        assert read_outcome(rig) == ["Cached"]


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("the client was closed")])
async def test_any_read_error_falls_back_to_the_cache(
    kubelet: FakeKubelet, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-5"))
        await rig.own.refresh()

        async def fail() -> None:
            raise error

        monkeypatch.setattr(rig.api, "get", fail)
        assert await kubelet.admit("train-0", 1) == {"GPU-5"}
        assert read_outcome(rig) == ["Cached"]
