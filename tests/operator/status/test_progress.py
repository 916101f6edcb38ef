"""Only steps between creation and Ready may be written later."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_policies import OnReplicaFailure, RunPolicy
from gpufleet_api.workload_status import PlacementState, ReplicaPlacement, WorkloadStatus
from gpufleet_operator.status.changes.progress import is_progress
from gpufleet_testing.operator import make

SPEC = make.spec(make.workload())
MOMENT = "2026-01-01T00:00:00Z"


def status(
    reconciling: str | None,
    *placements: ReplicaPlacement,
    true: Mapping[str, str] = MappingProxyType({}),
    **changes: object,
) -> WorkloadStatus:
    """Returns a status whose true conditions are Reconciling, and those in `true`."""
    true = {"Reconciling": reconciling or "", **true}
    conditions = [
        Condition(
            type=kind,
            status=ConditionStatus.TRUE if reason else ConditionStatus.FALSE,
            reason=reason or "Reconciled",
            last_transition_time=MOMENT,
        )
        for kind, reason in true.items()
    ]
    return WorkloadStatus(observed_generation=1, conditions=conditions, placements=list(placements), **changes)


def placed(state: PlacementState = PlacementState.RESERVED, **changes: object) -> ReplicaPlacement:
    return ReplicaPlacement(**{"replica": 0, "state": state, "pod": "w-0", "pod_uid": "u", **changes})


BINDING = status("Binding", placed())
WAITING = ReplicaPlacement(replica=0, state=PlacementState.PENDING)

STEPS = {
    "pods are created": (None, status("CreatingPods", WAITING)),
    "devices are reserved": (status("CreatingPods", WAITING), BINDING),
    "bound": (BINDING, status("Confirming", placed(PlacementState.BOUND))),
    "allocated": (BINDING, status("PodsNotReady", placed(PlacementState.ALLOCATED))),
}
OTHERS = {
    "ready": (BINDING, status(None, placed(PlacementState.ALLOCATED))),
    "an image is missing": (BINDING, status("ImagePullBackOff", placed(PlacementState.BOUND))),
    "the scheduler rejects the pod": (BINDING, status("Binding", placed(message="0/2 nodes are available"))),
    "a device is unhealthy": (BINDING, status("Binding", placed(), true={"Degraded": "DeviceUnhealthy"})),
    "another pod": (BINDING, status("Binding", placed(pod_uid="other"))),
    "no pod any more": (BINDING, status("CreatingPods", WAITING)),
    "a replica less": (BINDING, status("Binding")),
    "a removal": (BINDING, status("Binding", placed(removal="Preempted"))),
    "a rejection": (BINDING, status("Binding", placed(rejections=1))),
    "the next attempt": (BINDING, status("CreatingPods", placed(attempt=1))),
    "a failure": (BINDING, status("Binding", placed(), failed=1)),
    "readiness is lost": (status(None, placed(), true={"Ready": "AllReplicasReady"}), status("PodsNotReady", placed())),
    "the spec changed": (BINDING, BINDING.model_copy(update={"observed_generation": 2})),
    "succeeded": (BINDING, status("Binding", placed(PlacementState.SUCCEEDED))),
}


@pytest.mark.parametrize(("stored", "after"), STEPS.values(), ids=STEPS)
def test_step_may_be_written_later(stored: WorkloadStatus | None, after: WorkloadStatus) -> None:
    assert is_progress(SPEC, stored, after)


@pytest.mark.parametrize(("stored", "after"), OTHERS.values(), ids=OTHERS)
def test_anything_else_is_written_at_once(stored: WorkloadStatus | None, after: WorkloadStatus) -> None:
    assert not is_progress(SPEC, stored, after)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC.model_copy(update={"placement": SPEC.placement.model_copy(update={"gang": True})}),
        SPEC.model_copy(update={"run_policy": RunPolicy(on_replica_failure=OnReplicaFailure.RESTART_ALL)}),
        SPEC.model_copy(update={"template": None}),
    ],
    ids=["gang", "replicas need each other", "adopts"],
)
def test_stored_placements_of_some_workloads_are_needed(spec: WorkloadSpec) -> None:
    assert not is_progress(spec, None, BINDING)
