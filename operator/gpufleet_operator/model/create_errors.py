"""Why the apiserver rejects a pod, by its message: admission plugins have no codes."""

import re
from enum import StrEnum


class CreateError(StrEnum):
    """Condition reasons of rejected pods."""

    QUOTA = "QuotaExceeded"
    """Ends when other pods end."""
    POD_SECURITY = "PodSecurityViolation"
    OTHER = "PodCreateFailed"


_QUOTA = re.compile(r"\bexceeded quota: |\bstatus unknown for quota: ")
_POD_SECURITY = re.compile(r'\bviolates PodSecurity "')


def classify(message: str) -> CreateError:
    """Returns the reason of a rejection by the apiserver."""
    if _QUOTA.search(message):
        return CreateError.QUOTA
    return CreateError.POD_SECURITY if _POD_SECURITY.search(message) else CreateError.OTHER
