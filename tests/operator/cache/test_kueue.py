"""Workloads and AdmissionChecks of Kueue in the cache."""

from dataclasses import replace
from typing import Any

import pytest

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode_kueue import admission_check, kueue_workload
from gpufleet_operator.decide.kueue.admission import may_have_devices
from gpufleet_operator.model.kueue.names import SCHEDULING_GATES
from gpufleet_operator.model.kueue.objects import CheckState, CheckStatus
from gpufleet_testing.operator import make

NAMESPACE = "ml"
SINCE = "2026-01-02T03:04:05Z"


def body(version: int = 1, *true: str, uid: str = "k", pod: str = "pod-1", **status: object) -> dict[str, Any]:
    """A Workload with these conditions."""
    owners = [{"kind": "Pod", "uid": pod}, {"kind": "Other", "uid": "x"}]
    meta = {"uid": uid, "namespace": NAMESPACE, "name": uid, "resourceVersion": str(version), "ownerReferences": owners}
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": SINCE} for kind in true]
    return {"metadata": meta, "status": {"conditions": conditions, **status}}


@pytest.mark.parametrize("later", ["Finished", "Evicted"])
def test_workload_that_ended_or_is_evicted_holds_no_quota(later: str) -> None:
    assert kueue_workload(body(1, "QuotaReserved")).reserved_since is not None
    assert kueue_workload(body(1, "QuotaReserved", later)).reserved_since is None


def test_states_of_checks_are_decoded() -> None:
    checks = [{"name": "a", "state": "Retry", "retryCount": 2, "message": "no"}, {"name": "b", "state": "Odd"}]

    assert kueue_workload(body(admissionChecks=checks)).checks == {"a": CheckStatus(CheckState.RETRY, 2, "no")}


@pytest.mark.parametrize(
    ("conditions", "requeue_at", "paused"),
    [
        pytest.param(("Evicted", "QuotaReserved"), SINCE, False, id="quota is not free yet"),
        pytest.param(("Evicted",), None, False, id="Kueue has not stored the end"),
        pytest.param(("Evicted",), SINCE, True, id="during the pause"),
        pytest.param(("Evicted", "Requeued"), None, True, id="after the pause"),
        pytest.param(("Requeued", "QuotaReserved"), None, False, id="with quota again"),
        pytest.param(("Requeued", "Finished"), None, False, id="ended"),
    ],
)
def test_workload_is_paused(conditions: tuple[str, ...], requeue_at: str | None, paused: bool) -> None:
    state = {} if requeue_at is None else {"requeueAt": requeue_at}

    assert kueue_workload(body(1, *conditions, requeueState=state)).paused is paused


def test_check_is_active_by_its_condition() -> None:
    meta, spec = {"uid": "c", "name": "devices"}, {"controllerName": "gpufleet.dev/devices"}
    found = admission_check({"metadata": meta, "spec": spec})

    assert (found.controller, found.active) == ("gpufleet.dev/devices", False)
    status = {"conditions": [{"type": "Active", "status": "True"}]}
    assert admission_check({"metadata": meta, "spec": spec, "status": status}).active


def test_pod_has_quota_until_its_workload_loses_it() -> None:
    cache = Cache()
    cache.kueue_workloads.apply(body(1, "QuotaReserved"))
    assert set(cache.kueue_workloads.with_quota) == {(NAMESPACE, "pod-1")}
    cache.kueue_workloads.apply(body(2, "QuotaReserved", "Evicted"))
    assert not cache.kueue_workloads.with_quota


def test_pod_keeps_the_quota_of_a_workload_that_replaced_a_deleted_one() -> None:
    """The deletion may be noticed after the creation."""
    cache = Cache()
    cache.kueue_workloads.apply(body(1, "QuotaReserved", uid="old"))
    cache.kueue_workloads.apply(body(3, "QuotaReserved", uid="new"))
    cache.kueue_workloads.remove("old", "2")
    assert set(cache.kueue_workloads.with_quota) == {(NAMESPACE, "pod-1")}


def test_workload_reserves_no_quota_for_a_pod_of_another_namespace() -> None:
    cache = Cache()
    cache.kueue_workloads.apply(body(1, "QuotaReserved"))
    gated = make.pod(uid="pod-1", gates=(SCHEDULING_GATE, *SCHEDULING_GATES))
    with_quota = cache.kueue_workloads.with_quota
    assert may_have_devices(replace(gated, namespace=NAMESPACE), with_quota)
    assert not may_have_devices(replace(gated, namespace="other"), with_quota)


def test_pass_looks_at_pods_whose_quota_changed() -> None:
    cache = Cache()
    cache.tracker.take()
    cache.kueue_workloads.apply(body(1))
    assert not cache.tracker.take().pods
    cache.kueue_workloads.apply(body(2, "QuotaReserved"))
    assert cache.tracker.take().pods == {"pod-1"}
    cache.kueue_workloads.remove("k", "3")
    assert cache.tracker.take().pods == {"pod-1"}
