"""Builders that the agent's tests share."""

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer
from gpufleet_api.names import RESOURCE


class MakeAssignment(Protocol):
    def __call__(self, pod: str, *devices: str, **fields: Any) -> Assignment: ...


@pytest.fixture(scope="session")
def assignment() -> MakeAssignment:
    """`assignment("train-0", "GPU-1", "GPU-2", replica=1)`: a reservation for container `main` of `ml/train-0`."""

    def make(pod: str, *devices: str, **fields: Any) -> Assignment:
        usual = {
            "pod_uid": f"uid-{pod}",
            "namespace": "ml",
            "pod": pod,
            "container": "main",
            "resource": RESOURCE,
            "devices": devices,
            "workload": pod.rsplit("-", 1)[0],
            "replica": 0,
            "replicas": 1,
            "decided_at": "2026-01-01T00:00:00.000000Z",
        }
        return Assignment(**{**usual, **fields})

    return make


@pytest.fixture(scope="session")
def listed() -> Callable[..., ListedContainer]:
    """`listed("train-0", "GPU-1")`: container `main` of `ml/train-0` in the kubelet's list, holding GPU-1."""

    def make(pod: str, *devices: str, resource: str = RESOURCE, container: str = "main") -> ListedContainer:
        return ListedContainer(ContainerKey("ml", pod, container), {resource: frozenset(devices)} if devices else {})

    return make
