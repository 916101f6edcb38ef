"""The whole process, with kopf, its watches, our client and the probes, against an apiserver on the loopback.

The apiserver is the world of the other tests behind HTTP: enough to see that everything is wired, not what the real
one does.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from gpufleet_operator.kube.errors import AlreadyExistsError, ConflictError, LostRaceError, NotFoundError
from gpufleet_operator.main import StopSignal, run
from gpufleet_operator.settings import Settings

KINDS = {
    "/apis/gpufleet.dev/v1alpha1/gpuworkloads": "workloads",
    "/apis/gpufleet.dev/v1alpha1/gputelemetries": "telemetry",
    "/api/v1/pods": "pods",
    "/api/v1/nodes": "nodes",
}


class Server:
    """Discovery, lists, watches and writes."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.changed = asyncio.Condition()
        self.agents: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.agents.add(request.headers.get("User-Agent", "").partition("/")[0])
        if request.method == "GET" and request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if request.method == "GET" and request.path in KINDS:
            kind = KINDS[request.path]
            if request.query.get("labelSelector", "").startswith("!"):
                kind = "others"
            return await (self.watch(request, kind) if request.query.get("watch") else self.list(kind))
        try:
            body = await self.write(request)
        except (LostRaceError, NotFoundError, AlreadyExistsError, ConflictError) as error:
            reason = "AlreadyExists" if isinstance(error, AlreadyExistsError) else ""
            return web.json_response({"message": str(error), "reason": reason}, status=error.code)
        await self.notify()
        return web.json_response(body or {})

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def list(self, kind: str) -> web.Response:
        meta = {"resourceVersion": str(self.world._version)}
        return web.json_response({"metadata": meta, "kind": "List", "apiVersion": "v1", "items": self.world.of(kind)})

    async def watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        position = 0
        while True:
            news = self.world.log[position:]
            position += len(news)
            for event, found, body in news:
                if found == kind and int(body["metadata"]["resourceVersion"]) > since:
                    await response.write(json.dumps({"type": event, "object": body}).encode() + b"\n")
            async with self.changed:
                await self.changed.wait_for(lambda: len(self.world.log) > position)  # noqa: B023 - awaited here

    async def write(self, request: web.Request) -> Any:
        parts = request.path.strip("/").split("/")
        body = await request.json() if request.can_read_body else {}
        name = parts[-1]
        match request.method, parts:
            case "POST", [*_, "pods"]:
                return await self.world.create_pod(body)
            case "POST", [*_, "events"]:
                return await self.world.create_event("ml", body)
            case "PATCH", [*_, "pods", _]:
                return await self.world.patch_pod("ml", name, body)
            case "PATCH", [*_, "gputelemetries", _]:
                return await self.world.patch_telemetry(name, body)
            case "PATCH", [*_, "gpuworkloads", workload, "status"]:
                return await self.world.patch_workload_status("ml", workload, body)
            case "DELETE", [*_, "pods", _]:
                conditions = body["preconditions"]
                return await self.world.delete_pod("ml", name, conditions["uid"], conditions["resourceVersion"])
        raise NotFoundError(f"{request.method} {request.path}", 404)


def resource(name: str, kind: str, *, namespaced: bool) -> dict[str, Any]:
    return {
        "name": name,
        "singularName": kind.lower(),
        "kind": kind,
        "namespaced": namespaced,
        "verbs": ["get", "list", "watch", "patch"],
    }


DISCOVERY: dict[str, Any] = {
    "/api": {"versions": ["v1"]},
    "/apis": {
        "groups": [
            {
                "name": "gpufleet.dev",
                "versions": [{"version": "v1alpha1"}],
                "preferredVersion": {"version": "v1alpha1"},
            }
        ]
    },
    "/api/v1": {
        "resources": [
            resource("pods", "Pod", namespaced=True),
            resource("nodes", "Node", namespaced=False),
            resource("namespaces", "Namespace", namespaced=False),  # kopf waits for it to be there
        ]
    },
    "/apis/gpufleet.dev/v1alpha1": {
        "resources": [
            resource("gpuworkloads", "GPUWorkload", namespaced=True),
            resource("gputelemetries", "GPUTelemetry", namespaced=False),
        ]
    },
}


@asynccontextmanager
async def serving(world: Any) -> AsyncIterator[tuple[Server, SingleConfig]]:
    server = Server(world)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        config = KubeConfig.from_one(cluster=Cluster(server=url), user=User(token="t")).get()
        assert config is not None
        yield server, config
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
def test_from_start_to_sigterm(world: Any) -> None:
    cluster = world(2, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    for node in cluster.kubelets:
        cluster.agent(node)

    async def life() -> tuple[float, set[str]]:
        loop = asyncio.get_running_loop()
        async with serving(cluster) as (server, config):
            process = asyncio.create_task(run(Settings(host="127.0.0.1", port=0), config))
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
                await process  # raises what it died of
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(BaseExceptionGroup) as caught:
                async with asyncio.timeout(10):
                    await process
            assert caught.group_contains(StopSignal)
            return latency, server.agents

    latency, agents = asyncio.run(life())

    assert latency < 1
    assert any("kopf" in agent.lower() for agent in agents), agents
    assert cluster.collisions == []


def confirmed(cluster: Any) -> int:
    placements = [p for w in cluster.of("workloads") for p in (w.get("status") or {}).get("placements", [])]
    return sum(p["state"] == "Confirmed" for p in placements)


def test_without_the_crds_it_ends_with_a_clear_error(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "/apis/gpufleet.dev/v1alpha1/gputelemetries", "nothing")
    monkeypatch.delitem(KINDS, "/apis/gpufleet.dev/v1alpha1/gputelemetries")

    async def life() -> None:
        async with serving(world(1, 1)) as (_, config), asyncio.timeout(20):
            await run(Settings(host="127.0.0.1", port=0), config)

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(life())

    assert caught.group_contains(NotFoundError, match="CRDs are not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kopf's and aiohttp's own
def test_an_object_that_can_not_be_understood_stays_as_it_was_and_stops_nobody_else(world: Any) -> None:
    """The pod's devices stay its own."""
    cluster = world(1, 2)
    cluster.now = cluster.now.now(cluster.now.tzinfo)
    cluster.agent(next(iter(cluster.kubelets)))

    async def life() -> None:
        async with serving(cluster) as (server, config), asyncio.timeout(30):
            process = asyncio.create_task(run(Settings(host="127.0.0.1", port=0), config))
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

    asyncio.run(life())

    taken = [tuple(a["devices"]) for t in cluster.of("telemetry") for a in t["spec"]["assignments"]]
    assert len(set(taken)) == len(taken) == 2
    assert not cluster.collisions
