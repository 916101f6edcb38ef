"""The verdict on a running pod, from the kubelet's words in its status and the agent's report."""

from datetime import timedelta
from typing import Any

import pytest

from gpufleet_operator.decide import state as remember
from gpufleet_operator.ledger.verify import AllocationCheck, rejected_by_kubelet, verify_allocation
from gpufleet_operator.model.objects import Container, PodPhase
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make

RESERVED = ("GPU-1-0", "GPU-1-1")


def judge(
    kubelet: tuple[str, ...],
    agent: tuple[str, ...],
    *,
    memory: PassState | None = None,
    age: float = 1,
    covered: int | None = None,
    generation: int = 5,
) -> AllocationCheck:
    """One pod with two reserved devices of three."""
    pod = make.running_pod(devices=kubelet)
    assignment = make.assignment(pod, *RESERVED)
    telemetry = make.telemetry(
        devices=3,
        assignments=[assignment],
        held=dict.fromkeys(agent, assignment),
        age=age,
        covered=covered,
        generation=generation,
    )
    return verify_allocation(make.snapshot(pod, telemetry, memory=memory), pod, "node-1", assignment)


CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any], str]] = {
    "both say so": (RESERVED, RESERVED, {}, "Confirmed"),
    "in another order": (RESERVED[::-1], RESERVED, {}, "Confirmed"),
    "the kubelet says so, the agent hasn't looked": (RESERVED, (), {}, "Confirmed"),
    "an older kubelet says nothing, the agent does": ((), RESERVED, {}, "Confirmed"),
    "the kubelet says so while the agent is away": (RESERVED, (), {"age": 500}, "Confirmed"),
    "the kubelet says others": (("GPU-1-0", "GPU-1-2"), (), {}, "Mismatch"),
    "the kubelet says fewer": (("GPU-1-0",), (), {}, "Mismatch"),
    "the agent says others": (RESERVED, ("GPU-1-1", "GPU-1-2"), {}, "Mismatch"),
    "the agent says others on an older kubelet": ((), ("GPU-1-2",), {}, "Mismatch"),
    "no verdict on a report that doesn't cover the reservation": (("GPU-1-2",), ("GPU-1-2",), {"covered": 4}, "Bound"),
    "no verdict against a pod on stale telemetry": (("GPU-1-2",), (), {"age": 500}, "Bound"),
}


@pytest.mark.parametrize(("kubelet", "agent", "fields", "state"), CASES.values(), ids=CASES.keys())
def test_verdict(kubelet: tuple[str, ...], agent: tuple[str, ...], fields: dict[str, Any], state: str) -> None:
    verdict = judge(kubelet, agent, **fields)

    assert verdict.state == state
    assert bool(verdict.message) == (state == "Mismatch")


def test_coverage_is_of_the_generation_that_brought_the_reservation_not_of_the_latest() -> None:
    seen = PassState(covered_from={"uid-train-0-a": 3})

    assert judge(("GPU-1-2",), (), covered=3, generation=9, memory=seen).state == "Mismatch"


class TestRunningWithoutDevices:
    """An older kubelet, so that only the agent's reports tell; the container was started 60 s before them."""

    def verdicts(self, *reports: tuple[float, bool]) -> list[str]:
        """After each report: seconds after the start of the container, and whether it shows the devices."""
        memory, found = PassState(), []
        started = make.NOW - timedelta(seconds=60)
        pod = make.running_pod(containers=(Container("main", running=True, ran=True, started_at=started),))
        assignment = make.assignment(pod)
        for seconds, held in reports:
            holders = {"GPU-1-0": assignment} if held else {}
            telemetry = make.telemetry(assignments=[assignment], held=holders, age=60 - seconds)
            memory = remember.observe(make.snapshot(pod, telemetry, memory=memory))
            found.append(
                str(verify_allocation(make.snapshot(pod, telemetry, memory=memory), pod, "node-1", assignment).state)
            )
        return found

    def test_takes_two_reports_since_its_start(self) -> None:
        assert self.verdicts((1, False), (5, False), (12, False)) == ["Bound", "Bound", "Mismatch"]

    def test_one_report_alone_may_be_the_agents_first_look(self) -> None:
        assert self.verdicts((50, False)) == ["Bound"]
        assert self.verdicts((20, True), (50, False), (55, False)) == ["Confirmed", "Bound", "Bound"]

    def test_a_report_from_before_its_start_is_none(self) -> None:
        assert self.verdicts((-20, False), (50, False), (55, False)) == ["Bound", "Bound", "Bound"]

    def test_a_report_that_shows_it_starts_afresh(self) -> None:
        assert self.verdicts((5, False), (20, True), (30, False)) == ["Bound", "Confirmed", "Bound"]


REFUSALS = {
    "the plugin's error": ("UnexpectedAdmissionError", False, True),
    "a resource is out": ("OutOfcpu", False, True),
    "topology manager": ("TopologyAffinityError", False, True),
    "the node is shutting down": ("NodeShutdown", False, True),
    "it ran before": ("Evicted", True, False),
    "the application failed in an init container": ("", False, False),
    "the user's own limit": ("DeadlineExceeded", False, False),
}


@pytest.mark.parametrize(("reason", "ran", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_rejection(reason: str, ran: bool, expected: bool) -> None:
    containers = (Container("main", ran=ran),)

    assert (
        rejected_by_kubelet(make.released_pod(phase=PodPhase.FAILED, reason=reason, containers=containers)) is expected
    )
    assert not rejected_by_kubelet(make.released_pod(phase=PodPhase.RUNNING, reason=reason, containers=containers))
