"""A quota that gets more room starts a pass; each pod that is created changes one, and does not."""

from typing import Any

from gpufleet_operator.cache.quotas.quota_store import QuotaStore, resource_quota


def body(version: int, **status: object) -> dict[str, Any]:
    meta = {"uid": "uid-q", "name": "q", "namespace": "ml", "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {}, "status": status}


def calls(*versions: dict[str, Any]) -> int:
    found: list[None] = []
    store = QuotaStore(resource_quota, lambda: found.append(None))
    for each in versions:
        store.apply(each)
    return len(found)


def test_creation_of_a_pod_calls_nothing() -> None:
    first = body(1, hard={"pods": "4"}, used={"pods": "1"})
    assert calls(first, body(2, hard={"pods": "4"}, used={"pods": "2"})) == 0


def test_end_of_a_pod_and_a_raised_quota_call_changed() -> None:
    first = body(1, hard={"cpu": "1500m"}, used={"cpu": "1"})
    freed = body(2, hard={"cpu": "1500m"}, used={"cpu": "900m"})
    assert calls(first, freed, body(3, hard={"cpu": "2"}, used={"cpu": "900m"})) == 2


def test_deletion_calls_changed() -> None:
    found: list[None] = []
    store = QuotaStore(resource_quota, lambda: found.append(None))
    store.apply(body(1, hard={"pods": "4"}, used={"pods": "4"}))
    store.delete(body(2))
    assert len(found) == 1
    assert not store.items


def test_quota_without_a_status_is_kept_without_amounts() -> None:
    meta = {"uid": "uid-q", "name": "q", "namespace": "ml", "resourceVersion": "1"}
    assert not resource_quota({"metadata": meta, "spec": {"hard": {"pods": "4"}}}).hard
