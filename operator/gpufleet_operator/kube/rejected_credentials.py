"""Tells apart a single 401 from credentials that the apiserver rejects for good.

An apiserver also answers 401 while its token webhook is away, or a moment before it knows a new key. Such a request is
repeated. The token of a ServiceAccount that was deleted is rejected until someone deletes the pod.
"""

import time
from collections.abc import Callable

import structlog

from gpufleet_operator.kube.errors import ApiError, CredentialsRejectedError, UnauthorizedError

LIMIT_SECONDS = 120.0
"""How long requests are repeated while each is rejected."""
_UNAUTHORIZED = 401

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

    def note(self, code: int) -> None:
        """Notes the status of a response. One that is not about the request itself shows nothing."""
        if code == _UNAUTHORIZED:
            now = self._clock()
            if self._since is None or now - self._last > LIMIT_SECONDS:
                self._since = now
                log.warning("the apiserver rejects the credentials, retrying", seconds=LIMIT_SECONDS)
            self._last = now
        elif self._since is not None and code < _SERVER_ERROR and code != _TOO_MANY_REQUESTS:
            self._since = None
            log.warning("the apiserver accepts the credentials again")

    def error(self, message: str) -> ApiError:
        """Returns the error of a request that was rejected."""
        since = self._clock() if self._since is None else self._since
        if self._clock() - since < LIMIT_SECONDS:
            return UnauthorizedError(message, _UNAUTHORIZED)
        return CredentialsRejectedError(f"{message}, for {LIMIT_SECONDS:.0f} s", _UNAUTHORIZED)


_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
