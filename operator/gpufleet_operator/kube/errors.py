"""Errors of the apiserver, by what the caller has to do.

ApiError                     unexpected response: a failed write is retried, a failed list ends the process
|-- CredentialsRejectedError the credentials are rejected for minutes (401): ends the process
|-- LeadershipLostError      another process decides: ends the process
|-- NotFoundError            the object does not exist: remove it from the cache
|-- ConflictError            the object changed (409): decide again
|   `-- AlreadyExistsError   it was created before
|-- PatchConflictError       a test of a JSON Patch failed: decide again; has the current object
|-- GoneError                the resource version is too old (410), or a watch failed: list again
|-- InvalidWriteError        invalid or forbidden: report it to the user, retry much later; a read ends the process
`-- UnavailableError         no response, overloaded or interrupted: retry; the write may have been applied
    |-- UnauthorizedError    the credentials are rejected (401), maybe for a moment only: retry
    |-- ForbiddenReadError   a read is denied (403), maybe while roles are replaced: retry
    `-- LeaseRejectedError   the Lease may not be acquired, maybe while roles are replaced: retry
"""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """Base of all errors.

    Args:
        message: Of the apiserver.
        code: HTTP status; 0 without a response.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class CredentialsRejectedError(ApiError):
    """Status 401 for minutes: the token is invalid or expired. Ends the process."""


class LeadershipLostError(ApiError):
    """The Lease of the operator is held by another process, or expired."""


class NotFoundError(ApiError):
    """Status 404: the object or the API does not exist."""


class ConflictError(ApiError):
    """409: a precondition failed."""


class AlreadyExistsError(ConflictError):
    """409 on creation."""


class GoneError(ApiError):
    """410, or an error event within a watch."""


class InvalidWriteError(ApiError):
    """400, 403, 413, 422."""


class UnavailableError(ApiError):
    """Connection errors, timeouts, 429 and 5xx."""


class UnauthorizedError(UnavailableError):
    """Status 401: the token is invalid or expired, or the apiserver cannot check it now."""


class ForbiddenReadError(UnavailableError):
    """Status 403 of a read, for less than a minute."""


class LeaseRejectedError(UnavailableError):
    """A write that acquires the Lease is rejected, for less than two minutes."""


class PatchConflictError(ApiError):
    """A test of a JSON Patch failed. `current` is the object as it is now."""

    def __init__(self, message: str, current: Mapping[str, Any]) -> None:
        super().__init__(message, 422)
        self.current = current


_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500

_BY_CODE: Mapping[int, type[ApiError]] = {
    400: InvalidWriteError,
    401: UnauthorizedError,
    403: InvalidWriteError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    410: GoneError,
    413: InvalidWriteError,
    422: InvalidWriteError,
    _TOO_MANY_REQUESTS: UnavailableError,
}


def from_status(code: int, status: Mapping[str, Any]) -> ApiError:
    """Returns the error for a response with a metav1.Status."""
    message = str(status.get("message") or f"HTTP {code}")
    if code == 409 and status.get("reason") == "AlreadyExists":  # noqa: PLR2004 - as in the table above
        return AlreadyExistsError(message, code)
    kind = UnavailableError if code >= _SERVER_ERROR else _BY_CODE.get(code, ApiError)
    return kind(message, code)
