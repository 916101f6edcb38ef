"""The exceptions that end a command with exit code 2."""


class InputError(Exception):
    """The input cannot be used. The message has file, field and value, and is printed as one line on stderr."""


class ClusterError(InputError):
    """The cluster cannot be read or changed. The message names the cause and what to do."""


class ForbiddenError(ClusterError):
    """The user may not read or change an object."""


class MissingObjectError(ClusterError):
    """An object, or the kind of the objects, does not exist."""
