"""EvidenceError: something could not be read. WaitTimeoutError: it did not come true in time."""


class EvidenceError(Exception):
    """A source could not be read; the message says which and why."""


class WaitTimeoutError(Exception):
    """What was waited for did not happen; the message says what was seen last."""
