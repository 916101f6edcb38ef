"""A 401 is repeated like a missing response, and is an error of its own after minutes without another status."""

from collections.abc import Iterator

import httpx2
import pytest

from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, CredentialsRejectedError, UnauthorizedError, UnavailableError
from gpufleet_operator.kube.rejected_requests import LIMIT_SECONDS, RejectedCredentials
from gpufleet_testing.operator.http_apiserver import HandledRequests

Step = tuple[float, int]
"""Second at which a request is sent, and the status of its response."""


async def outcome(*steps: Step) -> type[ApiError] | None:
    """Sends requests, and returns the error of the last one."""
    now = 0.0
    codes: Iterator[int] = iter(code for _, code in steps)
    credentials = RejectedCredentials(lambda: now)
    api = Api(HandledRequests(lambda _: httpx2.Response(next(codes), json={})), ServerClock(), credentials)
    error: type[ApiError] | None = None
    for now, _ in steps:  # noqa: B007 - read by the clock
        error = None
        try:
            await api.get("/x")
        except ApiError as found:
            error = type(found)
    return error


MINUTES = LIMIT_SECONDS + 1
HALF = LIMIT_SECONDS / 2 + 1


@pytest.mark.parametrize(
    ("steps", "expected"),
    {
        "a single one": ([(0, 401)], UnauthorizedError),
        "accepted again": ([(0, 401), (1, 200)], None),
        "for minutes": ([(0, 401), (HALF, 401), (2 * HALF, 401)], CredentialsRejectedError),
        "no response of the apiserver itself in between": (
            [(0, 401), (HALF, 503), (HALF, 429), (HALF, 401), (2 * HALF, 401)],
            CredentialsRejectedError,
        ),
        "without permission, but known": ([(0, 401), (HALF, 403), (2 * HALF, 401)], UnauthorizedError),
        "two single ones": ([(0, 401), (MINUTES, 401)], UnauthorizedError),
    }.values(),
    ids=["single", "accepted", "minutes", "apiserver away", "forbidden", "two"],
)
async def test_credentials_are_rejected_after_minutes(steps: list[Step], expected: type[ApiError] | None) -> None:
    assert await outcome(*steps) is expected


def test_a_single_401_is_retried_and_minutes_of_it_are_not() -> None:
    """Every loop of the operator retries what is unavailable, and ends with any other error."""
    assert issubclass(UnauthorizedError, UnavailableError)
    assert not issubclass(CredentialsRejectedError, UnavailableError)
