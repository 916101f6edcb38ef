"""The cluster in memory behind HTTP on the loopback: enough to test how the process is wired."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from gpufleet_operator.kube.errors import AlreadyExistsError, ConflictError, NotFoundError, PatchConflictError
from gpufleet_testing.operator.cluster import FakeCluster

KINDS = {
    "/apis/gpufleet.dev/v1alpha1/gpuworkloads": "workloads",
    "/apis/gpufleet.dev/v1alpha1/gputelemetries": "telemetry",
    "/api/v1/pods": "pods",
    "/api/v1/nodes": "nodes",
    "/api/v1/services": "services",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": "leases",
}


class HttpApiserver:
    """Serves discovery, lists, watches and writes."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
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
        except (PatchConflictError, NotFoundError, AlreadyExistsError, ConflictError) as error:
            reason = "AlreadyExists" if isinstance(error, AlreadyExistsError) else ""
            return web.json_response({"message": str(error), "reason": reason}, status=error.code)
        await self.notify()
        return web.json_response(body or {})

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def list(self, kind: str) -> web.Response:
        meta = {"resourceVersion": str(self.cluster.version)}
        return web.json_response({"metadata": meta, "kind": "List", "apiVersion": "v1", "items": self.cluster.of(kind)})

    async def watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        position = 0
        while True:
            news = self.cluster.log[position:]
            position += len(news)
            for event, found, body in news:
                if found == kind and int(body["metadata"]["resourceVersion"]) > since:
                    await response.write(json.dumps({"type": event, "object": body}).encode() + b"\n")
            async with self.changed:
                await self.changed.wait_for(lambda: len(self.cluster.log) > position)  # noqa: B023 - awaited here

    async def write(self, request: web.Request) -> Any:
        parts = request.path.strip("/").split("/")
        body: Any = await request.json() if request.can_read_body else {}
        name = parts[-1]
        match request.method, parts:
            case "POST", [*_, "pods"]:
                return await self.cluster.create_pod(body)
            case "POST", [*_, "services"]:
                return await self.cluster.create_service(body)
            case "POST", [*_, "events"]:
                return await self.cluster.create_event("ml", body)
            case "PATCH", [*_, "pods", _]:
                return await self.cluster.patch_pod("ml", name, body)
            case "PATCH", [*_, "gputelemetries", _]:
                return await self.cluster.patch_telemetry(name, body)
            case "PATCH", [*_, "gputelemetries", node, "status"]:
                return await self.cluster.apply_telemetry_status(node, body)
            case "PATCH", [*_, "nodes", node, "status"]:
                return await self.cluster.patch_node_status(node, body)
            case "PATCH", [*_, "gpuworkloads", workload, "status"]:
                return await self.cluster.patch_workload_status("ml", workload, body)
            case "DELETE", [*_, "pods", _]:
                conditions = body["preconditions"]
                return await self.cluster.delete_pod("ml", name, conditions["uid"], conditions["resourceVersion"])
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
async def serving(cluster: FakeCluster) -> AsyncIterator[tuple[HttpApiserver, SingleConfig]]:
    server = HttpApiserver(cluster)
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
