"""An asynchronous client of the apiserver for many requests at a time."""

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import yaml

JsonObject = dict[str, Any]
T = TypeVar("T")

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
_NOT_FOUND = 404
_LONGEST_LINE = 2**24


class RejectedError(Exception):
    """The apiserver rejected a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class AsyncApi:
    """A client with the certificate of a kubeconfig. Use it as an asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._url = cluster["server"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]) + b"\n")
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(self._url, connector=connector, read_bufsize=_LONGEST_LINE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: object = None, content: str = "application/json") -> JsonObject:
        """Sends one request and returns the response.

        Raises:
            RejectedError: The apiserver answered with an error.
        """
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, headers={"Content-Type": content}) as response:
            text = await response.text()
            if not response.ok:
                raise RejectedError(response.status, text)
            found: JsonObject = json.loads(text)
            return found

    async def text(self, path: str) -> str:
        """Returns plain text, such as metrics."""
        async with self._session.get(path) as response:
            return await response.text()

    async def list(self, path: str, query: str = "") -> list[JsonObject]:
        found: list[JsonObject] = (await self.call("GET", f"{path}?{query}"))["items"]
        return found

    async def delete(self, path: str) -> None:
        """Deletes an object; it may be gone already."""
        try:
            await self.call("DELETE", path, {"propagationPolicy": "Background"})
        except RejectedError as error:
            if error.status != _NOT_FOUND:
                raise

    async def watch(self, path: str, query: str = "") -> AsyncIterator[tuple[str, JsonObject]]:
        """Yields each object of a collection as ADDED, and then the events of its changes, until it is cancelled."""
        listed = await self.call("GET", f"{path}?{query}")
        for item in listed["items"]:
            yield "ADDED", item
        version = listed["metadata"]["resourceVersion"]
        endless = aiohttp.ClientTimeout(total=None)
        while True:
            url = f"{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}&{query}"
            async with self._session.get(url, timeout=endless) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RejectedError(int(event["object"].get("code", 0)), str(event["object"]))
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


async def each(items: Iterable[T], action: Callable[[T], Awaitable[object]], at_a_time: int = 32) -> None:
    """Runs an action for each item, so many at a time."""
    limit = asyncio.Semaphore(at_a_time)

    async def one(item: T) -> None:
        async with limit:
            await action(item)

    async with asyncio.TaskGroup() as tasks:
        for item in items:
            tasks.create_task(one(item))
