"""Several processes and one Lease, in virtual time: at most one writes, whatever happens to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenReadError,
    InvalidWriteError,
    LeadershipLostError,
    NotFoundError,
    UnavailableError,
)
from gpufleet_operator.kube.leader_election import (
    LEASE_SECONDS,
    MAX_RETRY_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    LeaderElection,
)
from gpufleet_operator.kube.rejected_requests import LIMIT_SECONDS
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


def election_of(
    client: Client, identity: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> LeaderElection:
    api = cast("Api", client)
    return LeaderElection(api, "gpufleet-system", "gpufleet-operator", identity, ServerClock(), sleep=sleep)


def process(leases: Leases, identity: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> LeaderElection:
    return election_of(leases.client(identity), identity, sleep)


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
async def test_lease_that_is_read_during_the_start_expires_earlier() -> None:
    """The caches are filled meanwhile; a request without a response changes nothing."""
    leases = Leases()
    first, second = process(leases, "a"), process(leases, "b")
    await first.acquire()
    leases.unreachable_for.add("b")
    watching = asyncio.create_task(second.watch())
    await asyncio.sleep(1)
    leases.unreachable_for.clear()
    await asyncio.sleep(LEASE_SECONDS / 2)
    watching.cancel()

    took = await seconds_until_leading(second)

    assert LEASE_SECONDS / 2 <= took <= LEASE_SECONDS / 2 + 2 * RETRY_SECONDS


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

    election = election_of(Forbidden(Leases(), "a"), "a")

    with pytest.raises(ApiError, match="forbidden"):
        await election.acquire()


class WithoutRole(Client):
    """A process whose writes of the Lease are rejected while `error` is set."""

    error: ApiError | None = None

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        return await super().create(path, body)

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        return await super().merge_patch(path, body)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


DENIED = InvalidWriteError("leases is forbidden", 403)


def without_role(leases: Leases, error: ApiError | None = None) -> tuple[WithoutRole, LeaderElection]:
    client = WithoutRole(leases, "a")
    client.error = error
    return client, election_of(client, "a")


@pytest.mark.parametrize("error", [DENIED, ApiError("unsupported media type", 415)], ids=["denied", "unexpected"])
@pytest.mark.parametrize("takeover", [False, True], ids=["start", "takeover"])
@in_virtual_time
async def test_acquisition_that_is_rejected_for_a_moment_is_retried(takeover: bool, error: ApiError) -> None:
    """The roles are being replaced."""
    leases = Leases()
    if takeover:
        previous = process(leases, "b")
        await previous.acquire()
        await previous.release()
    client, election = without_role(leases, error)
    waiting = asyncio.create_task(seconds_until_leading(election))
    await asyncio.sleep(LIMIT_SECONDS / 2)
    assert not waiting.done()
    assert election.rejection == str(error)

    client.error = None

    assert await waiting <= LIMIT_SECONDS / 2 + MAX_RETRY_SECONDS
    assert election.may_write()
    assert election.rejection == ""


@in_virtual_time
async def test_acquisition_that_is_rejected_for_two_minutes_ends() -> None:
    _, election = without_role(Leases(), DENIED)
    begin = asyncio.get_running_loop().time()

    with pytest.raises(ApiError, match="leases is forbidden, for 120 s"):
        await election.acquire()

    assert LIMIT_SECONDS <= asyncio.get_running_loop().time() - begin <= LIMIT_SECONDS + MAX_RETRY_SECONDS


@in_virtual_time
async def test_time_of_rejections_begins_again_when_another_process_leads() -> None:
    leases = Leases()
    client, election = without_role(leases, DENIED)
    waiting = asyncio.create_task(election.acquire())
    await asyncio.sleep(LIMIT_SECONDS / 2)
    other = process(leases, "b")
    await other.acquire()
    keeping = asyncio.create_task(other.keep())
    await asyncio.sleep(LIMIT_SECONDS)
    assert election.rejection == ""

    keeping.cancel()
    await other.release()
    await asyncio.sleep(LIMIT_SECONDS / 2)
    assert not waiting.done()
    client.error = None
    await waiting
    assert election.may_write()


@in_virtual_time
async def test_denied_read_is_named_until_it_is_allowed() -> None:
    class Unread(Client):
        denied = True

        async def get(self, path: str) -> dict[str, Any]:
            if self.denied:
                raise ForbiddenReadError("leases is forbidden", 403)
            return await super().get(path)

    client = Unread(Leases(), "a")
    election = election_of(client, "a")
    waiting = asyncio.create_task(election.acquire())
    await asyncio.sleep(1)
    assert election.rejection == "leases is forbidden"
    client.denied = False
    await waiting
    assert election.rejection == ""


@pytest.mark.parametrize("error", [DENIED, ApiError("unsupported media type", 415)], ids=["denied", "unexpected"])
@in_virtual_time
async def test_renewal_that_is_rejected_for_a_moment_costs_no_leadership(error: ApiError) -> None:
    """If it goes on, the Lease expires."""
    client, election = without_role(Leases())
    await election.acquire()
    keeping = asyncio.create_task(election.keep())
    client.error = error
    await asyncio.sleep(LEASE_SECONDS / 2)
    client.error = None
    await asyncio.sleep(3 * LEASE_SECONDS)
    assert election.may_write()

    client.error = error
    with pytest.raises(LeadershipLostError) as caught:
        await keeping
    assert caught.value.__cause__ is error


@in_virtual_time
async def test_release_that_is_denied_is_no_error() -> None:
    """The process ends, and the Lease expires."""
    client, election = without_role(Leases())
    await election.acquire()
    client.error = DENIED
    await election.release()
    assert not election.leads
