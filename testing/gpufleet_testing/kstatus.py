"""The rules of kstatus for custom resources, as a function: fast enough for unit tests.

Source: sigs.k8s.io/cli-utils v0.37.2, pkg/kstatus/status: Compute in status.go, checkGenericProperties and
checkGeneration in generic.go, checkReadyCondition in status.go. e2e/placement/test_kstatus.py compares both.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Status of an object."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


def verdict(body: Mapping[str, Any]) -> Verdict:
    """Returns the status of a custom resource; the first rule that applies counts."""
    meta, status = body["metadata"], body.get("status") or {}
    if meta.get("deletionTimestamp"):
        return Verdict.TERMINATING
    if "generation" in meta and status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return Verdict.IN_PROGRESS
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] == "Reconciling":
            return Verdict.IN_PROGRESS
        if condition["status"] == "True" and condition["type"] == "Stalled":
            return Verdict.FAILED
    for condition in conditions:
        if condition["type"] == "Ready":
            return Verdict.CURRENT if condition["status"] == "True" else Verdict.IN_PROGRESS
    return Verdict.CURRENT
