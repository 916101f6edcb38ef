"""The columns REASON and MESSAGE: those of Ready, or of the condition that takes its place."""

from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import PodPhase
from gpufleet_testing.operator import make, results


def reason(status: WorkloadStatus) -> tuple[str | None, bool]:
    """The reason, and whether there is a condition Ready. MESSAGE shows the first condition, which has the reason."""
    assert status.conditions[0].reason == status.reason
    assert status.conditions[0].message
    return status.reason, any(c.type == "Ready" for c in status.conditions)


def test_waiting_workload_has_the_reason_of_ready() -> None:
    assert reason(results.status(decide(make.snapshot(make.workload())))) == ("CreatingPods", True)


def test_complete_workload_has_the_reason_of_complete() -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}}
    pod = make.running_pod(phase=PodPhase.SUCCEEDED)

    actions = decide(make.snapshot(make.workload(template=template), pod, make.telemetry()))

    assert reason(results.status(actions)) == ("Succeeded", False)


def test_suspended_workload_has_the_reason_of_suspended() -> None:
    assert reason(results.status(decide(make.snapshot(make.workload(suspend=True))))) == ("Suspended", False)


def test_suspended_workload_with_an_invalid_template_names_that() -> None:
    invalid = {"spec": {"restartPolicy": "Never", "nodeName": "n", "containers": [{"name": "a"}]}}

    actions = decide(make.snapshot(make.workload(suspend=True, template=invalid)))

    assert reason(results.status(actions)) == ("InvalidTemplate", True)
