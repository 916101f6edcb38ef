"""The client of the apiserver with a function as transport."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig

from gpufleet_agent.kube.lightkube_api import LightkubeTelemetryApi

Handler = Callable[[httpx2.Request], httpx2.Response]


def run(handler: Handler, scenario: Callable[[LightkubeTelemetryApi], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario whose requests the handler answers."""

    async def go() -> None:
        config = KubeConfig.from_dict(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://apiserver"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
        client = AsyncClient(config, transport=httpx2.MockTransport(handler), field_manager="gpufleet-agent")
        api = LightkubeTelemetryApi("node-1", random.Random(1), client)  # noqa: S311 - jitter
        try:
            await scenario(api)
        finally:
            await api.close()

    asyncio.run(go())


def failure(code: int, reason: str = "Reason", **fields: object) -> httpx2.Response:
    status = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": "in words", **fields}
    return httpx2.Response(code, json=status)


def missing(kind: str, name: str) -> httpx2.Response:
    return failure(404, "NotFound", details={"group": "gpufleet.dev", "kind": kind, "name": name})
