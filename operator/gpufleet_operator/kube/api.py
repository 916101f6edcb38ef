"""REST client with lightkube's configuration (kubeconfig, service account, token rotation, TLS).

lightkube's own client has no delete preconditions, no watch bookmarks and no read timeout for watches, which the
operator needs to be correct.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError
from pydantic_core import from_json
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random

from gpufleet_api.names import OPERATOR_FIELD_MANAGER
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, GoneError, UnavailableError, from_status
from gpufleet_operator.kube.http_client import AiohttpClient, HttpClient, HttpResponse
from gpufleet_operator.kube.rejected_requests import DeniedReads, RejectedCredentials
from gpufleet_operator.model.lenient_json import Json

Sleep = Callable[[float], Awaitable[None]]

JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
"""JSON is YAML."""

_TIMEOUT_SECONDS = 15.0
_TIMEOUT = aiohttp.ClientTimeout(
    total=None, connect=_TIMEOUT_SECONDS, sock_connect=_TIMEOUT_SECONDS, sock_read=_TIMEOUT_SECONDS
)
_WATCH_SILENCE_SECONDS = 90.0
"""The apiserver sends a bookmark about every minute, so a connection that is silent for longer is dead."""
_STARTING_SECONDS = 30.0
_DENIED = frozenset({401, 403})
_MAX_ERROR_TEXT = 1024
_OK, _REDIRECTED = 200, 300
_ACCEPT = {"Accept": "application/json", "User-Agent": OPERATOR_FIELD_MANAGER}


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `version` is the resource version of the list, the same for all pages."""

    items: Sequence[Json]
    version: str


def load_config() -> SingleConfig:
    """Returns the configuration of the service account, `KUBECONFIG` or `~/.kube/config`, in this order.

    Raises:
        ConfigError: There is none, or it is invalid.
    """
    config: SingleConfig | None = KubeConfig.from_env().get()
    if config is None:
        raise ConfigError("no current context in the kubeconfig")
    return config


def _watch_timeout(seconds: int) -> aiohttp.ClientTimeout:
    """Returns the timeouts of a watch that the server ends after `seconds`: a connection may hang without an end."""
    silence = min(_WATCH_SILENCE_SECONDS, seconds + _TIMEOUT_SECONDS)
    return aiohttp.ClientTimeout(total=None, connect=_TIMEOUT_SECONDS, sock_connect=_TIMEOUT_SECONDS, sock_read=silence)


class Api:
    """Sends requests and returns JSON. Each method raises the errors of `gpufleet_operator.kube.errors`.

    A starting apiserver rejects requests until it has read its roles and policies. So for 30 s after a request got no
    response, 401 and 403 are UnavailableError as well. A 403 of a read is ForbiddenReadError for a minute.

    Args:
        http: Sends the requests.
        clock: Updated from each response.
        credentials: Notes each response; None: with the monotonic clock.
        reads: Notes each response to a read; None: with the monotonic clock.
    """

    def __init__(
        self,
        http: HttpClient,
        clock: ServerClock,
        credentials: RejectedCredentials | None = None,
        reads: DeniedReads | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._starting_until = 0.0
        """By the clock of the event loop."""
        self._credentials = credentials or RejectedCredentials()
        self._reads = reads or DeniedReads()

    @classmethod
    def connect(cls, config: SingleConfig, clock: ServerClock, reads: DeniedReads | None = None) -> "Api":
        return cls(AiohttpClient.connect(config), clock, reads=reads)

    async def close(self) -> None:
        await self._http.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Json:
        """Returns an object or a list."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Json, *, strict: bool = False, dry_run: bool = False) -> Json:
        """Creates an object and returns it as stored.

        Args:
            path: Path of the collection.
            body: The object.
            strict: Unknown fields are an error.
            dry_run: Admit it without storing it.
        """
        params = {**_MANAGER, "fieldValidation": "Strict"} if strict else dict(_MANAGER)
        if dry_run:
            params["dryRun"] = "All"
        return await self._request("POST", path, params=params, body=body)

    async def json_patch(self, path: str, operations: Sequence[Json]) -> Json:
        """Applies a JSON Patch and returns the object as stored."""
        return await self._request("PATCH", path, params=_MANAGER, body=operations, content=JSON_PATCH)

    async def merge_patch(self, path: str, body: Json) -> Json:
        """Applies a strategic merge patch, for lists that other clients write as well; built-in kinds only."""
        return await self._request("PATCH", path, params=_MANAGER, body=body, content=STRATEGIC_MERGE_PATCH)

    async def apply(self, path: str, body: Json, *, force: bool = True) -> Json:
        """Applies an object server-side: the operator's fields become those of `body`, other fields stay.

        Raises:
            ConflictError: Without `force`: another client has set a field to another value.
        """
        params = {**_MANAGER, "force": "true" if force else "false"}
        return await self._request("PATCH", path, params=params, body=body, content=APPLY_PATCH)

    async def delete(self, path: str, options: Json) -> Json:
        """Deletes an object with v1.DeleteOptions."""
        return await self._request("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def pages(self, path: str, params: Mapping[str, str], size: int) -> AsyncIterator[Page]:
        """Yields the pages of a list. Raises GoneError if listing takes longer than the apiserver keeps the version."""
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
        """Yields the type and object of each watch event, bookmarks included. Raises GoneError at an error event.

        Args:
            path: Path of the collection.
            params: Label and field selectors.
            since: Resource version after which events are sent.
            seconds: Timeout after which the server ends the request.
        """
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        sent = self._clock.local()
        async with (
            self._translate_errors(),
            self._http.send("GET", path, params=query, headers=_ACCEPT, timeout=_watch_timeout(seconds)) as response,
        ):
            await self._check(response, sent, read=path)
            async for line in response.lines():
                event = parse(line)
                if event["type"] == "ERROR":
                    # Of any code: a list follows, as in client-go, and a permanent error rejects that list.
                    raise GoneError(str(event["object"].get("message")), int(event["object"].get("code") or 0))
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
        async with (
            self._translate_errors(),
            self._http.send(
                method,
                path,
                params=params or {},
                body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers=_ACCEPT if body is None else {**_ACCEPT, "Content-Type": content},
                timeout=_TIMEOUT,
            ) as response,
        ):
            await self._check(response, sent, read=path if method == "GET" else "")
            found: Json = parse(await response.read())
            return found

    async def _check(self, response: HttpResponse, sent: datetime, *, read: str) -> None:
        """Raises the error of a response. `read` is the path of a read."""
        self._clock.observe(response.headers.get("Date"), sent)
        if _OK <= response.status < _REDIRECTED:
            self._credentials.note(None)
            self._reads.accepted(read)
            return
        body = await response.read()
        try:
            status = parse(body)
        except ValueError:
            status = {"message": body.decode(errors="replace")[:_MAX_ERROR_TEXT]}
        error = from_status(response.status, status if isinstance(status, Mapping) else {})
        self._credentials.note(error)
        if error.code in _DENIED and asyncio.get_running_loop().time() < self._starting_until:
            raise UnavailableError(str(error), error.code)
        error = self._credentials.limited(error)
        raise self._reads.limited(read, error) if read else error

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._starting_until = asyncio.get_running_loop().time() + _STARTING_SECONDS
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        except json.JSONDecodeError as error:
            raise UnavailableError(f"truncated response: {error}") from error


def parse(document: bytes) -> Any:
    """Returns a JSON document: in a third of the time of `json`, which takes what is nested too deeply for pydantic.

    Raises:
        json.JSONDecodeError: The document is truncated.
    """
    try:
        return from_json(document, cache_strings="keys")
    except ValueError:
        return json.loads(document)


def retry_forever(*kinds: type[ApiError], sleep: Sleep = asyncio.sleep) -> AsyncRetrying:
    """Returns an iterator of attempts that repeats after errors of these kinds: after 0.5 s, then up to 30 s.

    Jitter keeps clients from returning at the same moment.
    """
    wait = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)
    return AsyncRetrying(retry=retry_if_exception_type(kinds), wait=wait, sleep=sleep)


_MANAGER = {"fieldManager": OPERATOR_FIELD_MANAGER}
