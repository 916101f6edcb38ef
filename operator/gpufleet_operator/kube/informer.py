"""Keeps a projected copy of a collection: list by pages, then watch, for as long as the operator lives.

Only the projection of an object is kept, and a list is read page by page, so a cluster's 50,000 pods cost a few
megabytes rather than gigabytes. A list replaces everything, so no deletion is missed, however long we were away.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

import structlog

from gpufleet_operator.cache.store import Stored
from gpufleet_operator.kube.api import Api, Json
from gpufleet_operator.kube.errors import GoneError, UnavailableError
from gpufleet_operator.kube.retry import Sleep, patiently

PAGE = 250
_WATCH_SECONDS = 300

log = structlog.get_logger(__name__)


T = TypeVar("T", bound=Stored)
T_contra = TypeVar("T_contra", bound=Stored, contravariant=True)


class Sink(Protocol[T_contra]):
    """Where the copy is kept."""

    def put(self, item: T_contra) -> None:
        """An object was added or changed."""

    def remove(self, uid: str, version: str) -> None:
        """An object is gone, or no longer matches."""

    def replace(self, items: Sequence[T_contra], version: str, unread: Collection[str] = ()) -> None:
        """This is everything, as of `version`, but for the objects with the uids `unread`, which exist as well."""


class Informer(Generic[T]):
    """One collection.

    Args:
        api: the apiserver.
        path: the collection's path, such as `/api/v1/nodes`.
        params: label and field selectors.
        project: object -> what is kept of it; None: it can't be read, and what was known of it before stays.
        sink: where it is kept.
        sleep: waits between tries.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        params: Mapping[str, str],
        project: Callable[[Json], T | None],
        sink: Sink[T],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api, self._path, self._params = api, path, params
        self._project, self._sink, self._sleep = project, sink, sleep

    async def run(self, listed: Callable[[], None]) -> None:
        """Follow the collection forever; `listed` is called after each complete list.

        Raises:
            ApiError: the apiserver refuses (no permission, no such kind): that needs a person.
        """
        while True:
            async for attempt in patiently(UnavailableError, GoneError, sleep=self._sleep):
                with attempt:
                    version = await self.list()
            listed()
            await self._follow(version)

    async def list(self) -> str:
        """Read everything into the sink; returns the list's version. Raises UnavailableError or GoneError."""
        items: list[T] = []
        unread: list[str] = []
        version = ""
        async for page in self._api.pages(self._path, self._params, PAGE):
            version = version or page.version
            for body in page.items:
                item = self._project(body)
                if item is not None:
                    items.append(item)
                else:
                    unread.append(str(body.get("metadata", {}).get("uid")))
        self._sink.replace(items, version, unread)
        return version

    async def _follow(self, version: str) -> None:
        """Watch from `version` until that is too old for the apiserver."""
        try:
            while True:
                async for attempt in patiently(UnavailableError, sleep=self._sleep):
                    with attempt:
                        version = await self._watch_once(version)
        except GoneError:
            log.debug("resource version too old, listing again", path=self._path)

    async def _watch_once(self, version: str) -> str:
        """One watch request; returns the version to go on from, also when the connection broke."""
        seconds = round(_WATCH_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - so that watches don't end all at once
        before = version
        try:
            async with aclosing(self._api.watch(self._path, self._params, version, seconds)) as events:
                async for kind, body in events:
                    version = str(body["metadata"]["resourceVersion"])
                    if kind == "DELETED":
                        self._sink.remove(body["metadata"]["uid"], version)
                    elif kind != "BOOKMARK" and (item := self._project(body)) is not None:
                        self._sink.put(item)
        except UnavailableError:
            if version == before:
                raise  # nothing came: wait before the next try
        return version
