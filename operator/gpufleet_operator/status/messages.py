"""Default messages of conditions: no condition is written without a message."""

_BY_REASON = {
    "AsExpected": "no problem found",
    "Reconciled": "nothing to do",
    "Suspended": "spec.suspend is true",
    "Suspending": "deleting pods: spec.suspend is true",
    "CreatingPods": "creating pods",
    "Placed": "every replica has devices, or had them until it ended",
    "InvalidObject": "the stored object cannot be decoded",
    "InvalidTemplate": "spec.template is invalid",
}


def message_or_default(kind: str, reason: str, message: str) -> str:
    """Returns the message, or one for the reason if it is empty.

    Args:
        kind: Type of the condition.
        reason: Reason of the condition.
        message: Of the rule; may be empty.
    """
    return message or _BY_REASON.get(reason) or f"{kind}: {reason}"
