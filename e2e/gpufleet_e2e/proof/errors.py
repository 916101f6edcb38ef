"""Errors of reading evidence."""


class EvidenceError(Exception):
    """A source could not be read; the message contains which and why."""


class WaitTimeoutError(Exception):
    """A condition did not become true in time; the message contains the last state."""
