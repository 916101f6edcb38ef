"""Server-side applies of the operator's fields of Kueue's objects."""

from datetime import datetime
from typing import Any

from gpufleet_common import timestamps
from gpufleet_operator.model.kueue.names import EVICTED_BY_CHECK, VERSION
from gpufleet_operator.model.kueue.objects import AdmissionCheck, CheckAnswer, CheckState


def check_answer(answer: CheckAnswer, now: datetime) -> dict[str, Any]:
    """Returns the entries of the checks. Another version of the Workload, which may have no quota, rejects them.

    Any answer but Ready evicts the Workload. Kueue 0.17 evicts it only after `requeueAfterSeconds`, and no other
    Workload gets the quota until then. A later time of the condition puts a Workload that Kueue found inadmissible into
    its queue again.
    """
    entry: dict[str, Any] = {
        "state": str(answer.state),
        "message": answer.message,
        "lastTransitionTime": timestamps.seconds(now),
    }
    if answer.requeue_after_seconds is not None:
        entry["requeueAfterSeconds"] = answer.requeue_after_seconds
    if answer.retries is not None:
        # Kueue counts only the Workloads that it evicts itself.
        entry["retryCount"] = answer.retries
    status: dict[str, Any] = {"admissionChecks": [{"name": name, **entry} for name in answer.checks]}
    if answer.state is not CheckState.READY:
        evicted = {"type": "Evicted", "status": "True", "reason": EVICTED_BY_CHECK, "message": answer.message}
        status["conditions"] = [evicted | {"lastTransitionTime": timestamps.seconds(now)}]
    one = answer.workload
    return {
        "apiVersion": VERSION,
        "kind": "Workload",
        "metadata": {
            "name": one.name,
            "namespace": one.namespace,
            "uid": one.uid,
            "resourceVersion": one.resource_version,
        },
        "status": status,
    }


def active_check(check: AdmissionCheck, now: datetime) -> dict[str, Any]:
    """Returns the condition Active, without which Kueue does not use the check."""
    condition = {
        "type": "Active",
        "status": "True",
        "reason": "Active",
        "message": "The gpufleet operator answers the check.",
        "lastTransitionTime": timestamps.seconds(now),
    }
    return {
        "apiVersion": VERSION,
        "kind": "AdmissionCheck",
        "metadata": {"name": check.name, "uid": check.uid},
        "status": {"conditions": [condition]},
    }
