"""The Lease is renewed while a pass blocks the event loop."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from lightkube.config.kubeconfig import SingleConfig

from gpufleet_operator.runtime.election_thread import ElectionThread
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import HttpApiserver, serving, until

LONG_SECONDS = 20.0
NAME = ("gpufleet-system", "gpufleet-operator", "a")


@contextmanager
def serving_elsewhere() -> Iterator[tuple[HttpApiserver, SingleConfig]]:
    """Runs an apiserver on another thread."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        begin = stack.enter_async_context(serving(FakeCluster(1, 1)))
        yield asyncio.run_coroutine_threadsafe(begin, loop).result()
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def block_until_renewed(server: HttpApiserver, times: int) -> None:
    """Blocks the event loop, as a pass does, until the Lease was renewed so often."""
    began = time.monotonic()
    seen: set[str] = set()
    while len(seen) <= times:
        assert time.monotonic() - began < LONG_SECONDS, "it is not renewed"
        seen.add(server.lease["spec"]["renewTime"])
        time.sleep(0.01)


async def test_lease_is_renewed_while_a_pass_blocks_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufleet_operator.kube.leader_election.RENEW_SECONDS", 0.05)
    with serving_elsewhere() as (server, config):
        election = ElectionThread(config, *NAME)
        await election.acquire()
        keeping = asyncio.create_task(election.keep())
        await asyncio.sleep(0)
        block_until_renewed(server, times=3)

        assert election.may_write()
        assert server.lease["spec"]["holderIdentity"] == "a"
        await election.close()
        await asyncio.gather(keeping, return_exceptions=True)
        assert server.lease["spec"]["holderIdentity"] == ""
    assert "election" not in {thread.name for thread in threading.enumerate()}


async def test_lease_is_read_before_it_may_be_acquired() -> None:
    """And not acquired: the caches are not complete."""
    with serving_elsewhere() as (server, config):
        election = ElectionThread(config, *NAME)
        watching = asyncio.create_task(election.watch())
        await until(lambda: server.reads_of_the_lease > 1)
        assert server.lease == {}
        watching.cancel()
        await election.acquire()
        assert server.lease["spec"]["holderIdentity"] == "a"
        await election.close()


async def test_election_that_never_began_ends() -> None:
    with serving_elsewhere() as (server, config):
        await ElectionThread(config, *NAME).close()
        assert server.lease == {}
