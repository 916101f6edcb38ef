"""Polling the leases of the nodes."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import pytest

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import InvalidWriteError, UnavailableError
from gpufleet_operator.kube.lease_poller import LeasePoller
from gpufleet_testing.operator import make


class Leases:
    """An apiserver with leases. `now` advances with each sleep of the poller."""

    def __init__(self, answers: list[str | Exception]) -> None:
        self.answers = answers
        self.now = make.NOW
        self.takes = 0.0
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        self.asked.append((path, params))
        self.now += timedelta(seconds=self.takes)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        odd = [{"metadata": {"name": "no-renewal"}, "spec": {"leaseDurationSeconds": 40}}, None]
        lease = {"metadata": {"name": "node-1"}, "spec": {"renewTime": answer, "leaseDurationSeconds": 40}}
        return {"items": [lease, *odd]}

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if not self.answers:
            raise asyncio.CancelledError


async def polled(answers: list[str | Exception]) -> tuple[Cache, Leases]:
    cache, server = Cache(), Leases(answers)
    cache.telemetry.put(make.telemetry())
    cache.dirty.clear()
    poller = LeasePoller(cast("Api", server), cache, ServerClock(lambda: server.now), sleep=server.sleep)
    with pytest.raises(asyncio.CancelledError):
        await poller.run(3)
    return cache, server


async def test_leases_are_read_from_the_watch_cache() -> None:
    cache, server = await polled(["a", "b"])

    assert server.asked[0] == (
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
        {"resourceVersion": "0"},
    )
    assert set(cache.node_leases.leases) == {"node-1"}
    assert cache.node_leases.renewed_at["node-1"] == make.NOW + timedelta(seconds=3)
    assert not cache.dirty.is_set(), "a renewal changes no decision"


async def test_missed_renewal_starts_a_pass() -> None:
    cache, _ = await polled(["a"] * 7)

    assert cache.node_leases.late_since("node-1") == make.NOW
    assert cache.dirty.is_set()


async def test_time_of_the_list_is_part_of_the_interval() -> None:
    cache, server = Cache(), Leases(["a", "b", "c"])
    cache.telemetry.put(make.telemetry())
    server.takes = 2
    with pytest.raises(asyncio.CancelledError):
        await LeasePoller(cast("Api", server), cache, ServerClock(lambda: server.now), sleep=server.sleep).run(3)

    assert cache.node_leases.read_at == make.NOW + timedelta(seconds=8), "lists at 0, 3 and 6 s"


async def test_list_without_a_response_is_skipped() -> None:
    cache, _ = await polled(["a", UnavailableError("no answer"), "a"])

    assert cache.node_leases.read_at == make.NOW + timedelta(seconds=6)


async def test_missing_permission_ends_the_poller() -> None:
    cache, server = Cache(), Leases([InvalidWriteError("forbidden", 403)])
    cache.telemetry.put(make.telemetry())

    with pytest.raises(InvalidWriteError):
        await LeasePoller(cast("Api", server), cache, ServerClock(lambda: make.NOW), sleep=server.sleep).run(3)


async def test_cluster_without_gpus_is_not_polled() -> None:
    cache, server = Cache(), Leases([])

    with pytest.raises(asyncio.CancelledError):
        await LeasePoller(cast("Api", server), cache, ServerClock(lambda: make.NOW), sleep=server.sleep).run(3)

    assert not server.asked
