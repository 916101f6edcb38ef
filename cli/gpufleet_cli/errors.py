"""The exception that ends a command with exit code 2."""


class InputError(Exception):
    """The input cannot be used. The message has file, field and value, and is printed as one line on stderr."""
