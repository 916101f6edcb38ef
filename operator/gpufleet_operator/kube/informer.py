"""Keeps a store equal to a collection of the apiserver: lists it page by page, then watches it.

Only the decoded objects are kept, so 50,000 pods take a few megabytes rather than gigabytes. A list replaces the whole
store, so no deletion is missed, however long the connection was interrupted.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

import structlog

from gpufleet_operator.cache.store import Stored
from gpufleet_operator.kube.api import Api, Sleep, retry_forever
from gpufleet_operator.kube.errors import GoneError, UnavailableError
from gpufleet_operator.model.lenient_json import Json

PAGE_SIZE = 250
_WATCH_SECONDS = 300
_EXPIRED = 410

log = structlog.get_logger(__name__)


T = TypeVar("T", bound=Stored)


class Sink(Protocol[T]):
    """A store, as an informer updates it: see `Store`."""

    def decode(self, body: Json) -> T | None: ...

    def known(self, body: Json) -> T | None: ...

    def apply(self, body: Json) -> None: ...

    def delete(self, body: Json) -> None: ...

    def replace(self, items: Sequence[T], version: str, undecodable: Collection[str] = ()) -> None: ...


class Informer(Generic[T]):
    """Lists and watches one collection.

    Args:
        api: The apiserver.
        path: Path of the collection, such as `/api/v1/nodes`; also an attribute.
        params: Label and field selectors.
        sink: The store.
        sleep: Waits between attempts.
        failed: Called when a watch ends with an error event, unless only its version is too old.
        watch_seconds: Time after which the apiserver ends each watch. A connection that is silent for 15 s longer, or
            for 90 s, counts as lost.
        heard: Called after each list, event and end of a watch: until then no change was missed.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        params: Mapping[str, str],
        sink: Sink[T],
        *,
        sleep: Sleep = asyncio.sleep,
        failed: Callable[[], None] = lambda: None,
        watch_seconds: int = _WATCH_SECONDS,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self.path, self._params = api, path, params
        self._sink, self._sleep, self._failed = sink, sleep, failed
        self._watch_seconds, self._heard = watch_seconds, heard

    async def run(self, listed: Callable[[], None]) -> None:
        """Follows the collection until cancelled; calls `listed` after each complete list.

        Raises:
            ApiError: The apiserver rejects the request (no permission, unknown kind).
        """
        while True:
            async for attempt in retry_forever(UnavailableError, GoneError, sleep=self._sleep):
                with attempt:
                    version = await self.list()
            listed()
            await self._follow(version)
            # An apiserver that ends each watch with an error must not get lists without a pause.
            await self._sleep(random.uniform(0.5, 1.0))  # noqa: S311 - clients must not return at the same moment

    async def list(self) -> str:
        """Replaces the store by a complete list and returns its resource version.

        Raises:
            UnavailableError: The apiserver did not respond.
            GoneError: The list expired between two pages.
        """
        items: list[T] = []
        undecodable: list[str] = []
        version = ""
        async for page in self._api.pages(self.path, self._params, PAGE_SIZE):
            version = version or page.version
            for body in page.items:
                item = self._sink.known(body) or self._sink.decode(body)
                if item is not None:
                    items.append(item)
                else:
                    undecodable.append(str(body.get("metadata", {}).get("uid")))
        self._sink.replace(items, version, undecodable)
        self._heard()
        return version

    async def _follow(self, version: str) -> None:
        """Watches from `version` until that is too old for the apiserver, or an error event ends the watch."""
        try:
            while True:
                async for attempt in retry_forever(UnavailableError, sleep=self._sleep):
                    with attempt:
                        version = await self._watch_once(version)
        except GoneError as error:
            log.info("watch failed, listing again", path=self.path, error=str(error), status=error.code)
            if error.code != _EXPIRED:
                self._failed()

    async def _watch_once(self, version: str) -> str:
        """Sends one watch request; returns the version to continue from, also after the connection is interrupted."""
        seconds = round(self._watch_seconds * random.uniform(0.8, 1.0))  # noqa: S311 - watches must not all end together
        before = version
        try:
            async with aclosing(self._api.watch(self.path, self._params, version, seconds)) as events:
                async for kind, body in events:
                    version = str(body["metadata"]["resourceVersion"])
                    if kind == "DELETED":
                        self._sink.delete(body)
                    elif kind != "BOOKMARK":
                        self._sink.apply(body)
                    self._heard()
            self._heard()
        except UnavailableError:
            if version == before:
                raise  # no event: wait before the next attempt
        return version
