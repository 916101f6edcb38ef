"""A leader that is stopped gives the Lease back at once, whatever its tasks wait for."""

import asyncio
import os
import signal

import pytest

from gpufleet_operator.main import run
from gpufleet_operator.runtime.watches.run_kopf import StopSignal
from gpufleet_operator.settings import OperatorSettings
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import serving, until

HANDOVER_SECONDS = 2
SETTINGS = OperatorSettings(host="127.0.0.1", port=0, lease_namespace="gpufleet-system")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_leader_gives_the_lease_back_while_a_write_hangs() -> None:
    cluster = FakeCluster(1, 1)
    cluster.submit("train")
    async with serving(cluster) as (server, config), asyncio.timeout(30):
        server.hangs = asyncio.Event()
        process = asyncio.create_task(run(SETTINGS, config))
        await until(lambda: bool(server.lease) or process.done())
        assert server.lease["spec"]["holderIdentity"]
        await until(lambda: server.waiting > 0 or process.done())

        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: not server.lease["spec"]["holderIdentity"], seconds=HANDOVER_SECONDS)

        with pytest.raises(BaseExceptionGroup) as caught:
            await process
        assert caught.group_contains(StopSignal)
