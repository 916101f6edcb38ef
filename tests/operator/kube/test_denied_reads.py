"""A denied read is repeated for a minute; a denied write is reported."""

from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest

from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, ForbiddenReadError, InvalidWriteError, UnavailableError
from gpufleet_operator.kube.rejected_requests import READ_LIMIT_SECONDS, DeniedReads
from gpufleet_testing.operator.http_apiserver import HandledRequests

Step = tuple[float, str, int]
"""Second at which a path is read, and the status of the response."""
HALF = READ_LIMIT_SECONDS / 2 + 1


async def error_of(request: Coroutine[Any, Any, object]) -> type[ApiError] | None:
    try:
        await request
    except ApiError as error:
        return type(error)
    return None


def connect(respond: Callable[[httpx2.Request], int], clock: Callable[[], float]) -> Api:
    http = HandledRequests(lambda request: httpx2.Response(respond(request), json={"message": "pods is forbidden"}))
    return Api(http, ServerClock(), reads=DeniedReads(clock))


@pytest.mark.parametrize(
    ("steps", "expected"),
    {
        "once": ([(0, "/pods", 403)], ForbiddenReadError),
        "allowed again": ([(0, "/pods", 403), (HALF, "/pods", 200), (2 * HALF, "/pods", 403)], ForbiddenReadError),
        "for a minute": ([(0, "/pods", 403), (HALF, "/pods", 403), (2 * HALF, "/pods", 403)], InvalidWriteError),
        "others are allowed": (
            [(0, "/pods", 403), (HALF, "/nodes", 200), (HALF, "/pods", 403), (2 * HALF, "/pods", 403)],
            InvalidWriteError,
        ),
        "apiserver away": (
            [(0, "/pods", 403), (HALF, "/pods", 503), (HALF, "/pods", 403), (2 * HALF, "/pods", 403)],
            InvalidWriteError,
        ),
        "two single ones": ([(0, "/pods", 403), (3 * HALF, "/pods", 403)], ForbiddenReadError),
    }.values(),
    ids=["once", "allowed", "minute", "others", "away", "two"],
)
async def test_read_is_denied_after_a_minute(steps: list[Step], expected: type[ApiError]) -> None:
    now, codes = 0.0, iter(code for _, _, code in steps)
    api = connect(lambda _: next(codes), lambda: now)
    found: type[ApiError] | None = None
    for now, path, _ in steps:  # noqa: B007 - read by the clock
        found = await error_of(api.get(path))
    assert found is expected


async def test_denied_write_is_not_retried_as_a_read_is() -> None:
    api = connect(lambda _: 403, lambda: 0.0)
    assert await error_of(api.create("/pods", {})) is InvalidWriteError
    assert await error_of(api.get("/pods")) is ForbiddenReadError


async def test_denied_watch_is_retried() -> None:
    api = connect(lambda _: 403, lambda: 0.0)
    assert await error_of(anext(api.watch("/pods", {}, "1", 10))) is ForbiddenReadError


def test_what_is_unavailable_is_retried_by_every_loop() -> None:
    assert issubclass(ForbiddenReadError, UnavailableError)
    assert not issubclass(InvalidWriteError, UnavailableError)


async def test_denied_reads_are_counted_by_resource_until_they_are_allowed() -> None:
    now, codes = 0.0, {"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": 403, "/api/v1/pods": 403}
    http = HandledRequests(lambda request: httpx2.Response(codes[request.url.path], json={}))
    reads = DeniedReads(lambda: now)
    api = Api(http, ServerClock(), reads=reads)
    for path in codes:
        await error_of(api.get(path))
    assert reads.by_resource() == {"leases.coordination.k8s.io": 1, "pods": 1}

    codes["/api/v1/pods"] = 200
    await api.get("/api/v1/pods")
    assert reads.by_resource() == {"leases.coordination.k8s.io": 1}

    now = 2 * READ_LIMIT_SECONDS + 1  # it is no longer read
    assert reads.by_resource() == {}
