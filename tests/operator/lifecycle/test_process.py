"""The whole process, with kopf, its watches, the client and the probes, against an apiserver on the loopback."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import kopf
import pytest

from gpufleet_common import logs
from gpufleet_operator.kube.errors import NotFoundError, UnauthorizedError
from gpufleet_operator.main import main, run
from gpufleet_operator.runtime.watches.run_kopf import StopSignal
from gpufleet_operator.settings import OperatorSettings
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.http_apiserver import KINDS, serving, until


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_from_start_to_sigterm() -> None:
    cluster = FakeCluster(2, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    for node in cluster.kubelets:
        cluster.agent(node)

    loop = asyncio.get_running_loop()
    async with serving(cluster) as (server, config):
        process = asyncio.create_task(run(OperatorSettings(host="127.0.0.1", port=0), config))
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

    assert latency < 1
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


def test_rejected_token_ends_the_log_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf fails with errors of its own at the same time: they must not follow as a traceback."""

    async def fail(*_: object) -> None:
        unauthorized, login = UnauthorizedError("Unauthorized", 401), kopf.LoginError("Ran out of valid credentials.")
        raise BaseExceptionGroup("tasks", [unauthorized, BaseExceptionGroup("kopf", [login])])

    monkeypatch.setattr("gpufleet_operator.main.load_config", Mock())
    monkeypatch.setattr("gpufleet_operator.main.run", fail)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    log = Mock()
    monkeypatch.setattr("gpufleet_operator.main.log", log)

    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 1
    (_, errors), (_, last) = log.error.call_args_list
    assert errors["errors"] == ["Unauthorized", "Ran out of valid credentials."]
    assert "delete the operator's pod" in last["fix"]


async def test_missing_crds_end_the_process_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KINDS, "/apis/gpufleet.dev/v1alpha1/gputelemetries")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(FakeCluster(1, 1)) as (_, config), asyncio.timeout(20):
            await run(OperatorSettings(host="127.0.0.1", port=0), config)

    assert caught.group_contains(NotFoundError, match="CRDs are not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
async def test_malformed_object_keeps_its_last_state_and_stops_no_other() -> None:
    """The pod keeps its devices."""
    cluster = FakeCluster(1, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    cluster.agent(next(iter(cluster.kubelets)))

    async with serving(cluster) as (server, config), asyncio.timeout(30):
        process = asyncio.create_task(run(OperatorSettings(host="127.0.0.1", port=0), config))
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
