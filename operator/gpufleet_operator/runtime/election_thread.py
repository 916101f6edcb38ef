"""Runs the election in its own thread.

A pass over a whole cluster of thousands of nodes blocks the event loop for as long as a Lease is valid. Without the
thread, the process and each of its successors would lose the Lease during their first pass.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from lightkube.config.kubeconfig import SingleConfig

from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.leader_election import LeaderElection
from gpufleet_operator.kube.rejected_requests import DeniedReads


class ElectionThread:
    """Runs a `LeaderElection` with its own connections. It has the same methods.

    If passes never end while the thread renews the Lease, the liveness probe fails: see `http_server`.

    Args:
        config: Address and credentials of the apiserver.
        namespace: Of the Lease.
        name: Of the Lease.
        identity: Identity of this process, unique for all time.
        reads: Records whether the Lease may be read.
    """

    def __init__(
        self, config: SingleConfig, namespace: str, name: str, identity: str, reads: DeniedReads | None = None
    ) -> None:
        clock = ServerClock()
        self._api = Api.connect(config, clock, reads)
        self._election = LeaderElection(self._api, namespace, name, identity, clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="election", daemon=True)

    async def watch(self) -> None:
        await self._run(self._election.watch())

    async def acquire(self) -> None:
        await self._run(self._election.acquire())

    async def keep(self) -> None:
        await self._run(self._election.keep())

    @property
    def rejection(self) -> str:
        return self._election.rejection

    def may_write(self) -> bool:
        return self._election.may_write()

    async def close(self) -> None:
        """Releases the Lease, and ends the thread."""
        if self._thread.is_alive():
            try:
                await self._run(self._end())
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        try:
            await self._election.release()
        finally:
            await self._api.close()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
