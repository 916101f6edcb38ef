"""The whole process, with kopf, its watches, the client and the probes, against an apiserver on the loopback."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from gpufleet_common import logs
from gpufleet_operator.kube.errors import (
    CredentialsRejectedError,
    LeadershipLostError,
    NotFoundError,
    UnauthorizedError,
)
from gpufleet_operator.main import main, run
from gpufleet_operator.runtime.watches.run_kopf import StopSignal
from gpufleet_operator.settings import OperatorSettings
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import KINDS, HttpApiserver, serving, until

SETTINGS = OperatorSettings(host="127.0.0.1", port=0, leader_election="false")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_from_start_to_sigterm() -> None:
    cluster = FakeCluster(2, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    for node in cluster.kubelets:
        cluster.agent(node)

    loop = asyncio.get_running_loop()
    async with serving(cluster) as (server, config):
        process = asyncio.create_task(run(SETTINGS, config))
        cluster.submit("early", replicas=2)
        await until(lambda: len(cluster.released) == 2 or process.done())
        cluster.submit("late")
        applied = loop.time()
        await server.notify()
        await until(lambda: len(cluster.released) == 3 or process.done())
        latency = loop.time() - applied
        cluster.scheduler()
        for node in cluster.kubelets:
            cluster.kubelet(node)
            cluster.agent(node)
        await server.notify()
        await until(lambda: confirmed(cluster) == 3 or process.done())
        if process.done():
            await process  # raises the error that ended it
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.timeout(10):
                await process
        assert caught.group_contains(StopSignal)
        agents = server.agents

    assert latency < SETTINGS.resync_interval_seconds / 2, "a change did not start a pass, but the next resync"
    assert any("kopf" in agent.lower() for agent in agents), agents
    assert cluster.collisions == []


def confirmed(cluster: FakeCluster) -> int:
    placements = [p for w in cluster.of("workloads") for p in (w.get("status") or {}).get("placements", [])]
    return sum(p["state"] == "Allocated" for p in placements)


def test_missing_kubeconfig_is_a_startup_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    log = Mock()
    monkeypatch.setattr("gpufleet_operator.main.log", log)
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 1
    (event,), facts = log.error.call_args
    assert event == "operator not started"
    assert facts["error"].startswith("no configuration for the apiserver: ")


def lost_lease() -> LeadershipLostError:
    error = LeadershipLostError("the Lease could not be renewed")
    error.__cause__ = UnauthorizedError("Unauthorized", 401)
    return error


@pytest.mark.parametrize(
    "error", [CredentialsRejectedError("Unauthorized", 401), lost_lease()], ids=["for minutes", "the Lease is lost"]
)
def test_rejected_token_ends_the_log_with_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:

    async def fail(*_: object) -> None:
        raise BaseExceptionGroup("tasks", [error])

    monkeypatch.setattr("gpufleet_operator.main.load_config", Mock())
    monkeypatch.setattr("gpufleet_operator.main.run", fail)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    log = Mock()
    monkeypatch.setattr("gpufleet_operator.main.log", log)

    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 1
    (_, errors), (_, last) = log.error.call_args_list
    assert errors["errors"] == [str(error)]
    assert "delete the operator's pod" in last["fix"]


def started(cluster: FakeCluster) -> None:
    """Gives a cluster in memory the time of this machine."""
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    for node in cluster.kubelets:
        cluster.agent(node)


@pytest.mark.parametrize(("kind", "code"), [("telemetry", 504), ("pods", 403), ("pods", 410)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_process_goes_on_after_an_error_event_of_a_watch(kind: str, code: int) -> None:
    """Of the kinds that kopf does not watch: those are listed again."""
    cluster = FakeCluster(1, 2)
    started(cluster)
    async with serving(cluster) as (server, config), asyncio.timeout(60):
        process = asyncio.create_task(run(SETTINGS, config))
        for number in (1, 2):
            cluster.submit(f"w-{number}")
            await server.notify()
            await until(lambda: len(cluster.released) >= number or process.done())  # noqa: B023 - awaited here
            assert not process.done(), process
            server.broken[kind] = code
            await server.notify()
            lists = server.lists[kind]
            await until(lambda: server.lists[kind] > lists or process.done())  # noqa: B023 - awaited here
            del server.broken[kind]
        process.cancel()
        with suppress(asyncio.CancelledError):
            await process


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_process_goes_on_after_rejected_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first request on, and later while it writes."""
    monkeypatch.setattr("gpufleet_operator.runtime.watches.run_kopf.BASE_SECONDS", 0.01)
    cluster = FakeCluster(1, 2)
    started(cluster)
    async with serving(cluster) as (server, config), asyncio.timeout(60):
        server.rejects_credentials = True
        process = asyncio.create_task(run(SETTINGS, config))
        for number in (1, 2):
            await until(rejecting(server, process))
            server.rejects_credentials = False
            cluster.submit(f"w-{number}")
            await server.notify()
            await until(lambda: len(cluster.released) >= number or process.done())  # noqa: B023 - awaited here
            assert not process.done(), process
            server.rejects_credentials = True
        process.cancel()
        with suppress(asyncio.CancelledError):
            await process


def rejecting(server: HttpApiserver, process: asyncio.Task[None]) -> Callable[[], bool]:
    """Returns what is True once another request was rejected, or the process has ended."""
    before = server.rejected
    return lambda: server.rejected > before or process.done()


async def test_process_ends_when_credentials_stay_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufleet_operator.kube.rejected_requests.LIMIT_SECONDS", 0.5)
    async with serving(FakeCluster(1, 1)) as (server, config), asyncio.timeout(20):
        server.rejects_credentials = True
        with pytest.raises(BaseExceptionGroup) as caught:
            await run(SETTINGS, config)

    assert caught.group_contains(CredentialsRejectedError)


async def test_missing_crds_end_the_process_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KINDS, "/apis/gpufleet.dev/v1alpha1/gputelemetries")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(FakeCluster(1, 1)) as (_, config), asyncio.timeout(20):
            await run(SETTINGS, config)

    assert caught.group_contains(NotFoundError, match="CRDs are not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_malformed_object_keeps_its_last_state_and_stops_no_other() -> None:
    """The pod keeps its devices."""
    cluster = FakeCluster(1, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    cluster.agent(next(iter(cluster.kubelets)))

    async with serving(cluster) as (server, config), asyncio.timeout(30):
        process = asyncio.create_task(run(SETTINGS, config))
        cluster.submit("one")
        await until(lambda: len(cluster.released) == 1 or process.done())
        (pod,) = cluster.of("pods")
        odd = {**pod, "metadata": {**pod["metadata"], "creationTimestamp": "noon"}}
        cluster.store("pods", f"ml/{pod['metadata']['name']}", odd)
        await server.notify()
        cluster.submit("two")
        await server.notify()
        await until(lambda: len(cluster.released) == 2 or process.done())
        assert not process.done(), process
        process.cancel()
        with suppress(asyncio.CancelledError):
            await process

    taken = [tuple(a["devices"]) for t in cluster.of("telemetry") for a in t["spec"]["assignments"]]
    assert len(set(taken)) == len(taken) == 2
    assert not cluster.collisions
