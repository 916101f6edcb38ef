"""Tells apart rejections of a moment from credentials that are rejected, and from reads that are denied, for good.

An apiserver also answers 401 while its token webhook is away, or a moment before it knows a new key. Such a request is
repeated. The token of a ServiceAccount that was deleted is rejected until someone deletes the pod.

While the roles of the operator are replaced, as by an upgrade of the chart, the apiserver denies for a moment what they
allow before and after. Such a read is repeated. Writes are not: a quota or a policy denies them as well.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

import structlog

from gpufleet_operator.kube import paths
from gpufleet_operator.kube.errors import (
    ApiError,
    CredentialsRejectedError,
    ForbiddenReadError,
    InvalidWriteError,
    UnauthorizedError,
    UnavailableError,
)

LIMIT_SECONDS = 120.0
"""How long requests are repeated while each is rejected."""
READ_LIMIT_SECONDS = 60.0
"""How long a read is repeated while it is denied."""
_CURRENT_SECONDS = 2 * READ_LIMIT_SECONDS
"""A read that must succeed is repeated within this time. One of a single object may never be."""
_FORBIDDEN = 403

log = structlog.get_logger(__name__)


class RejectedCredentials:
    """Since when no request is accepted.

    Args:
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def note(self, error: ApiError | None) -> None:
        """Notes the error of a response; None: it was accepted. One that is not about the request shows nothing."""
        if isinstance(error, UnauthorizedError):
            now = self._clock()
            if self._since is None or now - self._last > LIMIT_SECONDS:
                self._since = now
                log.warning("the apiserver rejects the credentials, retrying", seconds=LIMIT_SECONDS)
            self._last = now
        elif self._since is not None and not isinstance(error, UnavailableError):
            self._since = None
            log.warning("the apiserver accepts the credentials again")

    def limited(self, error: ApiError) -> ApiError:
        """Returns the error that was noted last, or the one that ends the process."""
        since = self._since if isinstance(error, UnauthorizedError) else None
        if since is not None and self._clock() - since >= LIMIT_SECONDS:
            return CredentialsRejectedError(f"{error}, for {LIMIT_SECONDS:.0f} s", error.code)
        return error


class DeniedReads:
    """Since when each path is denied. Clients of different paths may share it, also on different threads.

    Args:
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._denied: dict[str, tuple[float, float]] = {}
        """By path: the first and the last time."""

    def by_resource(self) -> Mapping[str, int]:
        """Returns the number of paths that are denied now, by resource as `kubectl auth can-i` names it."""
        now = self._clock()
        denied = [path for path, (_, last) in tuple(self._denied.items()) if now - last <= _CURRENT_SECONDS]
        return Counter(map(paths.resource, denied))

    def accepted(self, path: str) -> None:
        """Notes a response that shows that a path may be read."""
        if self._denied.pop(path, None) is not None:
            log.warning("the apiserver allows the read again", path=path)

    def limited(self, path: str, error: ApiError) -> ApiError:
        """Notes the error of a read. Returns it, or the one to retry, or the one that ends the process."""
        if error.code != _FORBIDDEN:
            return error
        now = self._clock()
        first, last = self._denied.get(path, (now, now))
        if path not in self._denied or now - last > READ_LIMIT_SECONDS:
            first = now
            log.warning(
                "the apiserver denies a read, retrying", path=path, error=str(error), seconds=READ_LIMIT_SECONDS
            )
        self._denied[path] = first, now
        if now - first < READ_LIMIT_SECONDS:
            return ForbiddenReadError(str(error), error.code)
        return InvalidWriteError(f"{error}, for {READ_LIMIT_SECONDS:.0f} s", error.code)
