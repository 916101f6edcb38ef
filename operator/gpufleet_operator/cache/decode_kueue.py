"""Decodes Workloads and AdmissionChecks of Kueue."""

from datetime import datetime

from gpufleet_common import timestamps
from gpufleet_operator.model.kueue.objects import AdmissionCheck, CheckState, CheckStatus, KueueWorkload
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text


def kueue_workload(body: Json) -> KueueWorkload:
    """Decodes a Workload of kueue.x-k8s.io.

    Raises:
        KeyError: `metadata` has no identity.
    """
    meta, status = body["metadata"], as_map(body.get("status"))
    ends = "deletionTimestamp" in meta
    return KueueWorkload(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        pods=tuple(text(o.get("uid")) for o in maps(meta.get("ownerReferences")) if o.get("kind") == "Pod"),
        reserved_since=None if ends else _reserved_since(status),
        paused=not ends and _is_paused(status),
        checks={
            text(check.get("name")): CheckStatus(
                CheckState(check["state"]), number(check.get("retryCount")), text(check.get("message"))
            )
            for check in maps(status.get("admissionChecks"))
            if check.get("state") in tuple(CheckState)
        },
    )


def admission_check(body: Json) -> AdmissionCheck:
    """Decodes an AdmissionCheck of kueue.x-k8s.io.

    Raises:
        KeyError: `metadata` has no identity.
    """
    meta = body["metadata"]
    return AdmissionCheck(
        uid=meta["uid"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        controller=text(as_map(body.get("spec")).get("controllerName")),
        active="Active" in _true_conditions(as_map(body.get("status"))),
    )


def _reserved_since(status: Json) -> datetime | None:
    found = _true_conditions(status)
    since = found.get("QuotaReserved")
    if since is None or "Finished" in found or "Evicted" in found:
        return None
    return timestamps.parse(since)


def _is_paused(status: Json) -> bool:
    found = _true_conditions(status)
    if "QuotaReserved" in found or "Finished" in found:
        return False
    # Requeued is False from the moment at which the quota is free until Kueue tries again.
    return "Requeued" in found or bool(text(as_map(status.get("requeueState")).get("requeueAt")))


def _true_conditions(status: Json) -> dict[str, str]:
    """Returns when each condition that is True became so, by type."""
    conditions = (c for c in maps(status.get("conditions")) if c.get("status") == "True")
    return {text(c.get("type")): text(c.get("lastTransitionTime")) for c in conditions}
