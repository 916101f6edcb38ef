"""Distinguishes temporary 401 and 403 responses from invalid credentials and missing permissions.

An apiserver also responds with 401 while its token webhook is unavailable, or before it has read a new key. Such a
request is repeated. The token of a deleted ServiceAccount is rejected until the pod is deleted.

While the operator's roles are replaced, as during an upgrade of the chart, the apiserver briefly denies what they
allow. Such a read is repeated. Writes are not: a quota or a policy denies them as well.
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
"""Maximum time for which requests are retried while all are rejected."""
READ_LIMIT_SECONDS = 60.0
"""Maximum time for which a denied read is retried."""
_CURRENT_SECONDS = 2 * READ_LIMIT_SECONDS
"""A read that must succeed is repeated within this time. One of a single object may never be."""
_FORBIDDEN = 403

log = structlog.get_logger(__name__)


class RejectedCredentials:
    """Tracks since when all requests are rejected.

    Args:
        clock: Returns seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._last = 0.0

    def note(self, error: ApiError | None) -> None:
        """Records the error of a response; None: it was accepted. An error of the server itself does not count."""
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
        """Returns the last error, or the error that ends the process."""
        since = self._since if isinstance(error, UnauthorizedError) else None
        if since is not None and self._clock() - since >= LIMIT_SECONDS:
            return CredentialsRejectedError(f"{error}, for {LIMIT_SECONDS:.0f} s", error.code)
        return error


class DeniedReads:
    """Tracks since when each path is denied. Clients of different paths may share it, also on different threads.

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
        """Records that a path may be read."""
        if self._denied.pop(path, None) is not None:
            log.warning("the apiserver allows the read again", path=path)

    def limited(self, path: str, error: ApiError) -> ApiError:
        """Records the error of a read. Returns that error, a retriable one, or the one that ends the process."""
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
