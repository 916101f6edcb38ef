"""The rules of kstatus for custom resources, as a function: fast enough for unit tests.

Source: sigs.k8s.io/cli-utils v0.37.2, pkg/kstatus/status: Compute in status.go, checkGenericProperties and
checkGeneration in generic.go, checkReadyCondition in status.go. e2e/placement/test_kstatus.py compares both.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class KStatus(StrEnum):
    """Status of an object."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def kstatus(body: Mapping[str, Any]) -> KStatus:
    """Returns the status of a custom resource; the first rule that applies counts."""
    meta, status = body["metadata"], body.get("status") or {}
    if meta.get("deletionTimestamp"):
        return KStatus.TERMINATING
    if "generation" in meta and status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return KStatus.IN_PROGRESS
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] == "Reconciling":
            return KStatus.IN_PROGRESS
        if condition["status"] == "True" and condition["type"] == "Stalled":
            return KStatus.FAILED
    for condition in conditions:
        if condition["type"] == "Ready":
            return KStatus.CURRENT if condition["status"] == "True" else KStatus.IN_PROGRESS
    return KStatus.CURRENT
