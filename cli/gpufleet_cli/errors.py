"""The one exception that ends a command with exit code 2."""


class InputError(Exception):
    """What the user gave can't be used. The message names file, field and value, and stands alone on stderr."""
