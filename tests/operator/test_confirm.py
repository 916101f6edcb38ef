"""The verdict on a running pod, from the kubelet's words in its status and the agent's report."""

from datetime import timedelta
from typing import Any

import pytest

from gpufleet_operator.confirm import Verdict, confirm, rejected
from gpufleet_operator.snapshot import Memory
from gpufleet_operator.views import Container, PodPhase

RESERVED = ("GPU-1-0", "GPU-1-1")


def judge(b: Any, kubelet: tuple[str, ...], agent: tuple[str, ...], **fields: Any) -> Verdict:
    """One pod with two reserved devices of three."""
    container = fields.pop("container", None)
    pod = b.running(devices=kubelet, **({"containers": (container,)} if container else {}))
    assignment = b.assignment(pod, *RESERVED)
    memory = fields.pop("memory", None)
    telemetry = b.telemetry(devices=3, assignments=[assignment], held=dict.fromkeys(agent, assignment), **fields)
    return confirm(b.snapshot(pod, telemetry, memory=memory), pod, "node-1", assignment)


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
def test_verdict(b: Any, kubelet: tuple[str, ...], agent: tuple[str, ...], fields: dict[str, Any], state: str) -> None:
    verdict = judge(b, kubelet, agent, **fields)

    assert verdict.state == state
    assert bool(verdict.message) == (state == "Mismatch")


def test_coverage_is_of_the_generation_that_brought_the_reservation_not_of_the_latest(b: Any) -> None:
    seen = Memory(covered_from={"uid-train-0-a": 3})

    assert judge(b, ("GPU-1-2",), (), covered=3, generation=9, memory=seen).state == "Mismatch"


@pytest.mark.parametrize(("seconds", "state"), [(12, "Mismatch"), (5, "Bound")])
def test_running_without_devices(b: Any, seconds: float, state: str) -> None:
    """A container that runs for a while before the report that shows nothing."""
    started = b.now - timedelta(seconds=1 + seconds)
    container = Container("main", running=True, ran=True, started_at=started)

    assert judge(b, (), (), container=container).state == state


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
def test_rejection(b: Any, reason: str, ran: bool, expected: bool) -> None:
    containers = (Container("main", ran=ran),)

    assert rejected(b.released(phase=PodPhase.FAILED, reason=reason, containers=containers)) is expected
    assert not rejected(b.released(phase=PodPhase.RUNNING, reason=reason, containers=containers))
