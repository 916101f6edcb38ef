"""Lets a process read documents with thousands of levels.

Users can store them in templates, owners and parameters of claims; kube-apiserver accepts 10,000 levels.
"""

import sys

_MAX_FRAMES = 22_000
"""Two frames for each level. CPython 3.11 counts recursion in C as well: 36,000 levels need 8 MiB of stack."""


def accept_deep_documents() -> None:
    """Raises Python's limit on recursion. Call it before anything is read.

    With the default of 1,000 frames, one stored object with 1,000 levels ends each process that lists its collection.
    """
    sys.setrecursionlimit(max(_MAX_FRAMES, sys.getrecursionlimit()))
