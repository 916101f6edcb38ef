"""What can go wrong at the apiserver. Each class is a decision for the caller.

ApiError                     an answer that we have no plan for: a bug, it ends the process
|-- NotFoundError            the object is gone: forget it
|-- ConflictError            somebody changed it (409): look again
|   `-- AlreadyExistsError   it was made before
|-- LostRaceError            a JSON Patch's test failed: look again, the object as it is now comes along
|-- GoneError                the resource version is too old (410): list again
|-- InvalidWriteError        refused for what it says or who says it: tell the user, try again much later
`-- UnavailableError         no answer, overloaded, or broken in between: try again; it may have been carried out
"""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """`code` is the HTTP status, 0 without one; the message is the apiserver's."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NotFoundError(ApiError):
    """404."""


class ConflictError(ApiError):
    """409: a precondition failed."""


class AlreadyExistsError(ConflictError):
    """409 on creation."""


class GoneError(ApiError):
    """410, as an answer or within a watch."""


class InvalidWriteError(ApiError):
    """400, 403, 413, 422."""


class UnavailableError(ApiError):
    """Connection errors, timeouts, 429 and 5xx."""


class LostRaceError(ApiError):
    """A test in a JSON Patch failed. `current` is the object now."""

    def __init__(self, message: str, current: Mapping[str, Any]) -> None:
        super().__init__(message, 422)
        self.current = current


_TOO_MANY = 429
_SERVER_ERROR = 500

_BY_CODE: Mapping[int, type[ApiError]] = {
    400: InvalidWriteError,
    403: InvalidWriteError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    410: GoneError,
    413: InvalidWriteError,
    422: InvalidWriteError,
    _TOO_MANY: UnavailableError,
}


def from_status(code: int, status: Mapping[str, Any]) -> ApiError:
    """The error for a response or a watch event that carries a metav1.Status."""
    message = str(status.get("message") or f"HTTP {code}")
    if code == 409 and status.get("reason") == "AlreadyExists":  # noqa: PLR2004 - as in the table above
        return AlreadyExistsError(message, code)
    kind = UnavailableError if code >= _SERVER_ERROR else _BY_CODE.get(code, ApiError)
    return kind(message, code)
