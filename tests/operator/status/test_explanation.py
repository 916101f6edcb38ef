"""The message that explains why a workload waits."""

from datetime import timedelta

from gpufleet_operator.model.replica import WorkloadReplicas
from gpufleet_operator.model.state_types import Backoff
from gpufleet_operator.placement.model import Diagnosis
from gpufleet_operator.status.context import StatusContext
from gpufleet_operator.status.explanation import explanation
from gpufleet_testing.operator import make

NONE_AVAILABLE = "0/2 GPUs are available: 2 in use."


def message(*, diagnosis: str | None, rejections: dict[str, str]) -> str | None:
    workload = make.workload()
    context = StatusContext(
        workload=workload,
        assessed=WorkloadReplicas(workload, make.spec(workload), ()),
        diagnosis=None if diagnosis is None else Diagnosis(message=diagnosis, considered=2, eligible=0),
        rejections={
            (0, node): Backoff(1, make.NOW - timedelta(seconds=age), make.NOW, text, "kubelet")
            for age, (node, text) in enumerate(rejections.items())
        },
    )
    found = explanation(context)
    return found.message if found else None


def test_nothing_to_explain_gives_no_explanation() -> None:
    assert message(diagnosis=None, rejections={}) is None


def test_diagnosis_is_the_whole_message_without_rejections() -> None:
    assert message(diagnosis=NONE_AVAILABLE, rejections={}) == NONE_AVAILABLE


def test_rejections_are_separated_by_semicolons() -> None:
    assert message(diagnosis=NONE_AVAILABLE, rejections={"node-1": "no disk", "node-2": "no slot"}) == (
        "0/2 GPUs are available: 2 in use. "
        "kubelet rejected replica 0 on node node-1: no disk; kubelet rejected replica 0 on node node-2: no slot"
    )


def test_rejections_alone_are_listed_latest_first() -> None:
    assert message(diagnosis=None, rejections={"node-2": "no slot", "node-1": "no disk"}) == (
        "kubelet rejected replica 0 on node node-2: no slot; kubelet rejected replica 0 on node node-1: no disk"
    )
