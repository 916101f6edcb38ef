"""The process goes on when a watch of kopf fails, and ends when no retry can help."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import kopf
import pytest

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.errors import CredentialsRejectedError, InvalidWriteError
from gpufleet_operator.runtime.watches.run_kopf import StopSignal, run_kopf, watchers
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import HttpApiserver, serving, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own


KINDS = 1
"""GPUWorkloads."""


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufleet_operator.runtime.watches.run_kopf._COMPARE_SECONDS", 0.1)


class Watched:
    """A cluster that kopf watches."""

    def __init__(self, server: HttpApiserver, cache: Cache) -> None:
        self.cluster, self.server, self.cache = server.cluster, server, cache
        self.failures = 0
        self.relists = 0
        self.rejection: Exception | None = None
        """Raised by the lists before a new start."""
        self.relist_hangs = False

    def fail(self) -> None:
        self.failures += 1

    async def relist(self) -> None:
        self.relists += 1
        if self.relist_hangs:
            await asyncio.Event().wait()
        if self.rejection is not None:
            raise self.rejection

    async def submit(self, name: str) -> None:
        self.cluster.submit(name)
        await self.server.notify()

    async def break_watches(self, kind: str, code: int) -> None:
        """Has the watches of a kind end with an error event."""
        self.server.broken[kind] = code
        await self.server.notify()

    async def heal(self, kind: str, task: asyncio.Task[None]) -> None:
        """Returns when it is watched again, and an event has arrived."""
        del self.server.broken[kind]
        await self.submit("late")
        await until(lambda: (self.sees("late") and len(watchers()) == KINDS) or task.done())
        assert not task.done(), task

    def sees(self, name: str) -> bool:
        return any(workload.name == name for workload in self.cache.workloads.items.values())


@asynccontextmanager
async def watching() -> AsyncIterator[tuple[Watched, asyncio.Task[None]]]:
    async with serving(FakeCluster(1, 1)) as (server, config), asyncio.timeout(30):
        watched = Watched(server, Cache())
        task = asyncio.create_task(
            run_kopf(watched.cache, config, relist=watched.relist, failed=watched.fail, base_seconds=0.01)
        )
        try:
            await watched.submit("early")
            await until(lambda: watched.sees("early") or task.done())
            yield watched, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("code", [500, 504, 403, 410])
async def test_watch_goes_on_after_an_error_event(code: int) -> None:
    async with watching() as (watched, task):
        await watched.break_watches("workloads", code)
        if code != 410:  # kopf lists again by itself
            await until(lambda: watched.failures >= 2 or task.done())
            assert watched.relists >= 1
        await watched.heal("workloads", task)


async def test_no_task_of_a_failed_kopf_is_left() -> None:
    """kopf itself leaves the watchers of the other kinds, whose number would grow with each failure."""
    async with watching() as (watched, task):
        assert len(watchers()) == KINDS
        await watched.break_watches("workloads", 500)
        await until(lambda: watched.failures >= 3 or task.done())
        await watched.heal("workloads", task)
        assert len(watchers()) == KINDS
    assert not watchers()


async def test_tasks_that_were_started_later_go_on() -> None:
    """`kopf.run_tasks` would cancel them."""
    async with watching() as (watched, task):
        other = asyncio.create_task(asyncio.Event().wait())
        await watched.break_watches("workloads", 500)
        await until(lambda: watched.relists >= 1 or task.done())
        await watched.heal("workloads", task)
        assert not other.done()
        other.cancel()


async def test_watching_continues_after_a_task_of_kopf_was_cancelled() -> None:
    async with watching() as (watched, task):
        (observer,) = (each for each in asyncio.all_tasks() if each.get_name() == "resource observer")
        observer.cancel()
        await until(lambda: watched.failures == 1 or task.done())
        await watched.submit("late")
        await until(lambda: (watched.sees("late") and len(watchers()) == KINDS) or task.done())
        assert not task.done(), task


async def test_rejected_list_ends_it() -> None:
    async with watching() as (watched, task):
        watched.rejection = InvalidWriteError("cannot list resource gpuworkloads", 403)
        await watched.break_watches("workloads", 403)
        with pytest.raises(InvalidWriteError, match="cannot list"):
            await task


async def test_watching_continues_after_rejected_credentials() -> None:
    """kopf raises a LoginError at the second 401, of which one may be left from before."""
    async with watching() as (watched, task):
        watched.server.rejects_credentials = True
        await watched.break_watches("workloads", 410)
        await until(lambda: watched.failures >= 2 or task.done())
        watched.server.rejects_credentials = False
        await watched.heal("workloads", task)
        assert watched.relists >= 2


async def test_credentials_that_stay_rejected_end_it() -> None:
    async with watching() as (watched, task):
        watched.server.rejects_credentials = True
        watched.rejection = CredentialsRejectedError("Unauthorized", 401)
        await watched.break_watches("workloads", 410)
        with pytest.raises(CredentialsRejectedError):
            await task


async def test_caches_are_compared_after_kopf_has_listed_again() -> None:
    """It reports no deletion of the time before, as of an outage after which its version is too old."""
    async with watching() as (watched, task):
        await watched.submit("other")
        await until(lambda: watched.sees("other") or task.done())
        watched.server.broken["workloads"] = 410
        watched.cluster.remove("workloads", "ml/early")
        await watched.server.notify()
        await until(lambda: watched.relists >= 1 or task.done())
        await watched.heal("workloads", task)
        assert watched.failures == 0


async def test_no_list_is_compared_while_watches_go_on() -> None:
    async with watching() as (watched, task):
        await watched.submit("early-too")
        await until(lambda: watched.sees("early-too") or task.done())
        assert watched.relists == 0


async def test_rejected_comparison_ends_it() -> None:
    async with watching() as (watched, task):
        watched.rejection = InvalidWriteError("cannot list resource gpuworkloads", 403)
        await watched.break_watches("workloads", 410)
        with pytest.raises(InvalidWriteError, match="cannot list"):
            await task


async def test_error_of_a_task_of_kopf_is_reported_by_kopf_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio reports it as well, when the task is garbage: kopf retrieves the error of the first that fails."""
    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "default_exception_handler", reported.append)
    async with watching() as (_, task):
        assert watchers()
        others = asyncio.all_tasks() - {asyncio.current_task(), task}
        of_kopf = [each for each in others if "/kopf/" in repr(each)]
        assert len(of_kopf) > len(watchers()), "no task but watches"
        for each in (*of_kopf, task):
            loop.call_exception_handler({"message": "Task exception was never retrieved", "future": each})
    assert [context["future"] for context in reported] == [task]


async def test_signal_while_kopf_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf's own handlers of signals exist for a moment. A signal that they got would only restart kopf."""
    spawn = kopf.spawn_tasks

    async def spawn_and_signal(**options: Any) -> Any:
        tasks = await spawn(**options)
        os.kill(os.getpid(), signal.SIGTERM)
        return tasks

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_and_signal)
    async with serving(FakeCluster(1, 1)) as (server, config), asyncio.timeout(30):
        watched = Watched(server, Cache())
        with pytest.raises(StopSignal):
            await run_kopf(watched.cache, config, relist=watched.relist, failed=watched.fail, base_seconds=0.01)
    assert watched.failures == 0


async def test_signal_ends_it_during_a_pause() -> None:
    async with watching() as (watched, task):
        watched.relist_hangs = True
        await watched.break_watches("workloads", 500)
        await until(lambda: watched.failures >= 1 or task.done())
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopSignal):
            await task
