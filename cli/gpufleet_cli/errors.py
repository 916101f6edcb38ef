"""The exceptions that end a command with exit code 2."""


class InputError(Exception):
    """The input cannot be used. The message has file, field and value, and is printed as one line on stderr."""


class ClusterError(InputError):
    """The cluster cannot be read or changed. The message names the cause and what to do."""


class ForbiddenError(ClusterError):
    """The user may not read or change an object, or admission rejects the object.

    Args:
        message: The message.
        by_rbac: The user lacks the permission.
    """

    def __init__(self, message: str, *, by_rbac: bool = False) -> None:
        super().__init__(message)
        self.by_rbac = by_rbac


class MissingObjectError(ClusterError):
    """An object, or the kind of the objects, does not exist."""
