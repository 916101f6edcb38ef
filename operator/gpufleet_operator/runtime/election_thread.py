"""The election on a thread of its own.

A pass over a whole cluster of thousands of nodes blocks the event loop for as long as a Lease is valid. Without the
thread, the process would lose the Lease by its first pass, and so would its successor.
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
    """Runs a `LeaderElection`, whose methods these are, with connections of its own.

    A process whose thread renews the Lease although its passes never end is not live: see `http_server`.

    Args:
        config: Address and credentials of the apiserver.
        namespace: Of the Lease.
        name: Of the Lease.
        identity: Of this process; no other process may ever have the same.
        reads: Notes whether the Lease may be read.
    """

    def __init__(
        self, config: SingleConfig, namespace: str, name: str, identity: str, reads: DeniedReads | None = None
    ) -> None:
        clock = ServerClock()
        self._api = Api.connect(config, clock, reads)
        self._election = LeaderElection(self._api, namespace, name, identity, clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="election", daemon=True)

    async def acquire(self) -> None:
        self._thread.start()
        await self._run(self._election.acquire())

    async def keep(self) -> None:
        await self._run(self._election.keep())

    @property
    def rejection(self) -> str:
        return self._election.rejection

    def may_write(self) -> bool:
        return self._election.may_write()

    async def close(self) -> None:
        """Gives the Lease back, and ends the thread."""
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
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
