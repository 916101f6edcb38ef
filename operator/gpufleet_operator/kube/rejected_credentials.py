"""Tells apart a single 401 from credentials that the apiserver rejects for good.

An apiserver also answers 401 while its token webhook is away, or a moment before it knows a new key. Such a request is
repeated. The token of a ServiceAccount that was deleted is rejected until someone deletes the pod.
"""

import time
from collections.abc import Callable

import structlog

from gpufleet_operator.kube.errors import ApiError, CredentialsRejectedError, UnauthorizedError, UnavailableError

LIMIT_SECONDS = 120.0
"""How long requests are repeated while each is rejected."""

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
