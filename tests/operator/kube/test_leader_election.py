"""Several processes and one Lease, in virtual time: at most one writes, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    InvalidWriteError,
    LeadershipLostError,
    NotFoundError,
    UnavailableError,
)
from gpufleet_operator.kube.leader_election import LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, LeaderElection
from gpufleet_testing.agent.virtual_time import in_virtual_time


class Leases:
    """An apiserver with one Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.unreachable_for: set[str] = set()
        """Identities whose requests get no response."""

    def client(self, identity: str) -> "Client":
        return Client(self, identity)


class Client:
    """The requests of one process."""

    def __init__(self, leases: Leases, identity: str) -> None:
        self.leases, self.identity = leases, identity

    async def get(self, path: str) -> dict[str, Any]:
        del path
        self._reach()
        if self.leases.lease is None:
            raise NotFoundError("not found", 404)
        return self.leases.lease

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        del path
        self._reach()
        if self.leases.lease is not None:
            raise AlreadyExistsError("exists", 409)
        return self._store(body["spec"])

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        del path
        self._reach()
        if self.leases.lease is None:
            raise NotFoundError("not found", 404)
        if body["metadata"]["resourceVersion"] != self.leases.lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed", 409)
        return self._store(body["spec"])

    def _store(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.leases.version += 1
        self.leases.lease = {"metadata": {"resourceVersion": str(self.leases.version)}, "spec": spec}
        return self.leases.lease

    def _reach(self) -> None:
        if self.identity in self.leases.unreachable_for:
            raise UnavailableError("no response")


class FrozenSleep:
    """Sleeps, and for the first time in which it is frozen, until it goes on."""

    def __init__(self) -> None:
        self.frozen_seconds = 0.0

    async def __call__(self, seconds: float) -> None:
        await asyncio.sleep(seconds + self.frozen_seconds)


def process(leases: Leases, identity: str, sleep: Any = asyncio.sleep) -> LeaderElection:
    api: Any = leases.client(identity)
    return LeaderElection(api, "gpufleet-system", "gpufleet-operator", identity, ServerClock(), sleep=sleep)


@dataclass(frozen=True)
class Pair:
    """A leader that renews its Lease, and a standby that waits for it."""

    leader: LeaderElection
    standby: LeaderElection
    keeping: "asyncio.Task[None]"
    waiting: "asyncio.Task[None]"


@asynccontextmanager
async def leader_and_standby(leases: Leases) -> AsyncIterator[Pair]:
    leader, standby = process(leases, "a"), process(leases, "b")
    await leader.acquire()
    pair = Pair(leader, standby, asyncio.create_task(leader.keep()), asyncio.create_task(standby.acquire()))
    try:
        yield pair
    finally:
        pair.keeping.cancel()
        pair.waiting.cancel()


async def seconds_until_leading(election: LeaderElection) -> float:
    begin = asyncio.get_running_loop().time()
    await election.acquire()
    return asyncio.get_running_loop().time() - begin


@in_virtual_time
async def test_first_process_leads_at_once_and_the_second_waits() -> None:
    leases = Leases()
    first, second = process(leases, "a"), process(leases, "b")

    assert await seconds_until_leading(first) == 0
    keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
    await asyncio.sleep(10 * LEASE_SECONDS)

    assert first.may_write()
    assert not waiting.done()
    assert not second.may_write()
    keeping.cancel()
    waiting.cancel()


@in_virtual_time
async def test_released_lease_is_taken_at_once() -> None:
    leases = Leases()
    first, second = process(leases, "a"), process(leases, "b")
    await first.acquire()
    waiting = asyncio.create_task(seconds_until_leading(second))
    await asyncio.sleep(3)

    await first.release()

    assert not first.may_write()
    assert await waiting <= 3 + RETRY_SECONDS


@in_virtual_time
async def test_lease_of_a_killed_process_is_taken_when_it_expires() -> None:
    leases = Leases()
    first, second = process(leases, "a"), process(leases, "b")
    await first.acquire()
    waiting = asyncio.create_task(seconds_until_leading(second))

    took = await waiting

    assert LEASE_SECONDS <= took <= LEASE_SECONDS + 2 * RETRY_SECONDS
    assert not first.may_write()


@in_virtual_time
async def test_frozen_leader_may_not_write_when_it_goes_on() -> None:
    """Frozen for as long as the Lease is valid: another process leads, or may lead at any moment."""
    leases, sleep = Leases(), FrozenSleep()
    first, second = process(leases, "a", sleep), process(leases, "b")
    await first.acquire()
    sleep.frozen_seconds = 2 * LEASE_SECONDS
    keeping = asyncio.create_task(first.keep())

    await second.acquire()

    assert not first.may_write(), "two processes may write"
    assert second.may_write()
    with pytest.raises(LeadershipLostError, match="held by b"):
        await keeping
    assert not first.leads


@in_virtual_time
async def test_leader_without_apiserver_stops_before_another_takes_over() -> None:
    leases = Leases()
    async with leader_and_standby(leases) as pair:
        await asyncio.sleep(3 * RENEW_SECONDS)
        leases.unreachable_for.add("a")

        while not pair.waiting.done():
            assert not (pair.leader.may_write() and pair.standby.may_write())
            await asyncio.sleep(0.1)

        assert not pair.leader.may_write()
        with pytest.raises(LeadershipLostError, match="could not be renewed for 10 s"):
            await pair.keeping


@in_virtual_time
async def test_short_outage_of_the_apiserver_costs_no_leadership() -> None:
    leases = Leases()
    async with leader_and_standby(leases) as pair:
        leases.unreachable_for |= {"a", "b"}
        await asyncio.sleep(LEASE_SECONDS / 2)
        leases.unreachable_for.clear()
        await asyncio.sleep(3 * LEASE_SECONDS)

        assert pair.leader.may_write()
        assert not pair.waiting.done()


@in_virtual_time
async def test_deleted_lease_is_created_again_by_its_holder() -> None:
    """A standby waits until the holder can no longer write."""
    leases = Leases()
    async with leader_and_standby(leases) as pair:
        await asyncio.sleep(1)

        leases.lease = None
        await asyncio.sleep(3 * LEASE_SECONDS)

        assert pair.leader.may_write()
        assert not pair.waiting.done()


@in_virtual_time
async def test_missing_permission_is_an_error() -> None:
    class Forbidden(Client):
        async def get(self, path: str) -> dict[str, Any]:
            raise ApiError("leases is forbidden", 403)

    api: Any = Forbidden(Leases(), "a")
    election = LeaderElection(api, "gpufleet-system", "gpufleet-operator", "a", ServerClock())

    with pytest.raises(ApiError, match="forbidden"):
        await election.acquire()


@in_virtual_time
async def test_renewal_that_is_denied_for_a_moment_costs_no_leadership() -> None:
    """The roles are being replaced. If it goes on, the Lease expires."""
    leases, denied = Leases(), [False]

    class Denied(Client):
        async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            if denied[0]:
                raise InvalidWriteError("leases is forbidden", 403)
            return await super().merge_patch(path, body)

    api: Any = Denied(leases, "a")
    election = LeaderElection(api, "gpufleet-system", "gpufleet-operator", "a", ServerClock())
    await election.acquire()
    keeping = asyncio.create_task(election.keep())
    denied[0] = True
    await asyncio.sleep(LEASE_SECONDS / 2)
    denied[0] = False
    await asyncio.sleep(3 * LEASE_SECONDS)
    assert election.may_write()

    denied[0] = True
    with pytest.raises(LeadershipLostError) as caught:
        await keeping
    assert isinstance(caught.value.__cause__, InvalidWriteError)
