"""Pods that together exceed a ResourceQuota, in the words of the apiserver."""

from typing import Any

import pytest

from gpufleet_operator.pods.quota import exceeded, pod_usage

POD = {
    "spec": {
        "containers": [
            {"resources": {"limits": {"cpu": "1", "gpufleet.dev/gpu": "2"}, "requests": {"cpu": "500m"}}},
            {"resources": {"limits": {"memory": "1Gi"}}},
        ]
    }
}


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def test_usage_has_requests_limits_and_the_pod_itself() -> None:
    assert pod_usage(POD["spec"]) == {
        "pods": 1,
        "count/pods": 1,
        "cpu": 500,
        "requests.cpu": 500,
        "limits.cpu": 1000,
        "memory": 2**30,
        "requests.memory": 2**30,
        "limits.memory": 2**30,
        "requests.gpufleet.dev/gpu": 2,
        "limits.gpufleet.dev/gpu": 2,
    }


@pytest.mark.parametrize(
    ("hard", "used", "message"),
    [
        ({"requests.gpufleet.dev/gpu": "8"}, {}, ""),
        (
            {"requests.gpufleet.dev/gpu": "7"},
            {},
            (
                "exceeded quota: q, requested: requests.gpufleet.dev/gpu=8, used: requests.gpufleet.dev/gpu=0, "
                "limited: requests.gpufleet.dev/gpu=7"
            ),
        ),
        ({"pods": "5"}, {"pods": "2"}, "exceeded quota: q, requested: pods=4, used: pods=2, limited: pods=5"),
        (
            {"cpu": "2", "limits.cpu": "4", "memory": "1Ti"},
            {"cpu": "100m", "limits.cpu": "500m"},
            (
                "exceeded quota: q, requested: cpu=2,limits.cpu=4, used: cpu=100m,limits.cpu=500m, "
                "limited: cpu=2,limits.cpu=4"
            ),
        ),
        ({"services": "0"}, {}, ""),
    ],
    ids=["fits", "devices", "pods", "several resources", "another kind"],
)
def test_quota_of_four_runs_one_gang_of_four(hard: dict[str, str], used: dict[str, str], message: str) -> None:
    assert exceeded([quota(hard, used)], POD, 4) == message


def test_quota_with_scopes_is_left_to_the_apiserver() -> None:
    assert exceeded([quota({"pods": "0"}, scopes=["BestEffort"])], POD, 1) == ""


def test_quota_without_status_is_left_to_the_apiserver() -> None:
    assert exceeded([{"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}], POD, 1) == ""
