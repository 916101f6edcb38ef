"""The apiserver's REST API over lightkube's connection (kubeconfig, service account, token rotation, TLS).

lightkube's own client has neither delete preconditions nor watch bookmarks nor a read timeout for watches, all of
which correctness hangs on here; so requests are made directly on the HTTP client that it configures.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from gpufleet_api.names import OPERATOR_FIELD_MANAGER
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, UnavailableError, from_status

Json = Mapping[str, Any]

JSON_PATCH = "application/json-patch+json"

_TIMEOUT_SECONDS = 15.0
_WATCH_SILENCE_SECONDS = 90.0
"""The apiserver sends a bookmark about every minute: a longer silence is a dead connection."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `version` is that of the whole list, the same in all of its pages."""

    items: Sequence[Json]
    version: str


def load_config() -> SingleConfig:
    """Service account, `KUBECONFIG` or `~/.kube/config`, in this order.

    Raises:
        ConfigError: none of them, or one that can't be read.
    """
    config: SingleConfig | None = KubeConfig.from_env().get()
    if config is None:
        raise ConfigError("no current context in the kubeconfig")
    return config


class Api:
    """Verbs on paths, JSON in and out; every failure is one of `errors`."""

    def __init__(self, http: httpx2.AsyncClient, clock: ServerClock) -> None:
        self._http = http
        self._clock = clock

    @classmethod
    def connect(cls, config: SingleConfig, clock: ServerClock) -> "Api":
        """An API on a configured connection."""
        return cls(AsyncClient(config, ConnectionParams(timeout=httpx2.Timeout(_TIMEOUT_SECONDS))), clock)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """Read an object or a list."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Json, *, strict: bool = False) -> Json:
        """Make an object; returns it as stored. `strict` refuses fields that the apiserver doesn't know."""
        params = {**_MANAGER, "fieldValidation": "Strict"} if strict else _MANAGER
        return await self._request("POST", path, params=params, body=body)

    async def json_patch(self, path: str, operations: Sequence[Json]) -> Json:
        """Apply a JSON Patch; returns the object as stored."""
        return await self._request("PATCH", path, params=_MANAGER, body=operations, content=JSON_PATCH)

    async def delete(self, path: str, options: Json) -> Json:
        """Delete an object with v1.DeleteOptions."""
        return await self._request("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def pages(self, path: str, params: Mapping[str, str], size: int) -> AsyncIterator[Page]:
        """A whole list, page by page: memory for one page at a time. GoneError when it took too long."""
        token = ""
        while True:
            more = {"continue": token} if token else {}
            body = await self.get(path, {**params, "limit": str(size), **more})
            meta = body.get("metadata") or {}
            yield Page(body.get("items") or (), str(meta.get("resourceVersion") or ""))
            token = str(meta.get("continue") or "")
            if not token:
                return

    async def watch(
        self, path: str, params: Mapping[str, str], since: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Json]]:
        """(type, object) as they come, bookmarks included, until the server ends the request after `seconds`."""
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        timeout = httpx2.Timeout(_TIMEOUT_SECONDS, read=_WATCH_SILENCE_SECONDS)
        sent = self._clock.local()
        async with _translated(), self._http.stream("GET", path, params=query, timeout=timeout) as response:
            await self._check(response, sent)
            async for line in response.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise from_status(int(event["object"].get("code") or 0), event["object"])
                yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
    ) -> Json:
        sent = self._clock.local()
        async with _translated():
            response = await self._http.request(
                method,
                path,
                params=params,
                content=None if body is None else json.dumps(body, separators=(",", ":")),
                headers={"Content-Type": content, "Accept": "application/json"},
            )
            await self._check(response, sent)
            found: Json = response.json()
            return found

    async def _check(self, response: httpx2.Response, sent: datetime) -> None:
        self._clock.heard(response.headers.get("Date"), sent)
        if response.is_success:
            return
        await response.aread()
        try:
            status = response.json()
        except ValueError:
            status = {"message": response.text[:1024]}
        raise from_status(response.status_code, status if isinstance(status, Mapping) else {})


_MANAGER = {"fieldManager": OPERATOR_FIELD_MANAGER}


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    except json.JSONDecodeError as error:
        raise UnavailableError(f"the answer was cut off: {error}") from error


__all__ = ["Api", "ApiError", "Json", "Page", "load_config"]
