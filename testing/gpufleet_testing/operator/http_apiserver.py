"""The cluster in memory behind HTTP on the loopback, which tests how the process is wired, and requests without it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
from aiohttp import web
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from gpufleet_operator.kube.errors import AlreadyExistsError, ConflictError, NotFoundError, PatchConflictError
from gpufleet_operator.kube.http_client import HttpResponse
from gpufleet_testing.operator.cluster import FakeCluster

KINDS = {
    "/apis/gpufleet.dev/v1alpha1/gpuworkloads": "workloads",
    "/apis/gpufleet.dev/v1alpha1/gputelemetries": "telemetry",
    "/apis/gpufleet.dev/v1alpha1/gpudemands": "demands",
    "/api/v1/pods": "pods",
    "/api/v1/nodes": "nodes",
    "/api/v1/services": "services",
    "/api/v1/resourcequotas": "quotas",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": "leases",
}


class HttpApiserver:
    """Serves discovery, lists, watches and writes."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.changed = asyncio.Condition()
        self.agents: set[str] = set()
        self.broken: dict[str, int] = {}
        """Kind -> code of the error event with which its watches end."""
        self.rejects_credentials = False
        self.rejected = 0
        """Number of requests that were rejected so."""
        self.unavailable = False
        """Every request is answered with 503."""
        self.unanswered: Counter[str] = Counter()
        """Requests that were answered so, by kind; of others than lists and watches by path."""
        self.lists: Counter[str] = Counter()
        """Complete lists by kind."""
        self.lease: dict[str, Any] = {}
        """The Lease of the operator's replicas; empty: there is none."""
        self.reads_of_the_lease = 0
        self.hangs: asyncio.Event | None = None
        """If set, creations of pods wait for it."""
        self.waiting = 0
        """Number of creations that wait, or have."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.agents.add(request.headers.get("User-Agent", "").partition("/")[0])
        if self.rejects_credentials:
            self.rejected += 1
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        if self.unavailable:
            self.unanswered[KINDS.get(request.path, request.path)] += 1
            return web.json_response({"kind": "Status", "code": 503, "message": "unavailable"}, status=503)
        if request.method == "GET" and request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if request.method == "GET" and request.path in KINDS:
            kind = KINDS[request.path]
            if request.query.get("labelSelector", "").startswith("!"):
                kind = "others"
            return await (self.watch(request, kind) if request.query.get("watch") else self.list(kind))
        try:
            leases = "leases" in request.path.split("/")
            body = await (self._lease(request) if leases else self.write(request))
        except (PatchConflictError, NotFoundError, AlreadyExistsError, ConflictError) as error:
            reason = "AlreadyExists" if isinstance(error, AlreadyExistsError) else ""
            return web.json_response({"message": str(error), "reason": reason}, status=error.code)
        await self.notify()
        return web.json_response(body or {})

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def list(self, kind: str) -> web.Response:
        self.lists[kind] += 1
        meta = {"resourceVersion": str(self.cluster.version)}
        return web.json_response({"metadata": meta, "kind": "List", "apiVersion": "v1", "items": self.cluster.of(kind)})

    async def watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        position = 0
        while kind not in self.broken:
            news = self.cluster.log[position:]
            position += len(news)
            for event, found, body in news:
                if found == kind and int(body["metadata"]["resourceVersion"]) > since:
                    await response.write(json.dumps({"type": event, "object": body}).encode() + b"\n")
            async with self.changed:
                await self.changed.wait_for(
                    lambda: len(self.cluster.log) > position or kind in self.broken  # noqa: B023 - awaited here
                )
        code = self.broken[kind]
        status = {"kind": "Status", "status": "Failure", "message": "etcdserver: no leader", "reason": "InternalError"}
        error = {"type": "ERROR", "object": {**status, "code": code}}
        await response.write(json.dumps(error).encode() + b"\n")
        return response

    async def _lease(self, request: web.Request) -> dict[str, Any]:
        method, body = request.method, await request.json() if request.can_read_body else {}
        self.reads_of_the_lease += method == "GET"
        if method == "GET" and not self.lease:
            raise NotFoundError("no Lease", 404)
        if method == "PATCH" and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("the Lease changed", 409)
        if method != "GET":
            self.cluster.version += 1
            self.lease = {"metadata": {"resourceVersion": str(self.cluster.version)}, "spec": body["spec"]}
        return self.lease

    async def _create_pod(self, body: dict[str, Any]) -> Any:
        if self.hangs is not None:
            self.waiting += 1
            await self.hangs.wait()
        return await self.cluster.create_pod(body)

    async def write(self, request: web.Request) -> Any:
        parts = request.path.strip("/").split("/")
        body: Any = await request.json() if request.can_read_body else {}
        name = parts[-1]
        match request.method, parts:
            case "POST", [*_, "pods"]:
                return await self._create_pod(body)
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


class HandledRequests:
    """`HttpClient` without a connection.

    Args:
        handler: Returns the response to a request, or raises as aiohttp does.
    """

    def __init__(self, handler: Callable[[httpx2.Request], httpx2.Response]) -> None:
        self._handler = handler

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as of the client that this stands for
    ) -> AsyncIterator[HttpResponse]:
        request = httpx2.Request(method, f"http://api{path}", params=dict(params), headers=dict(headers), content=body)
        yield _Response(self._handler(request))

    async def close(self) -> None:
        pass


class _Response:
    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content

    async def read(self) -> bytes:
        return self._content

    async def lines(self) -> AsyncIterator[bytes]:
        for line in self._content.splitlines():
            yield line
