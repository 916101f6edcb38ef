"""The allocation check of a running pod, by the kubelet's status and the agent's report."""

from dataclasses import replace
from datetime import timedelta
from typing import TypedDict

import pytest

from gpufleet_api.base import ContainerDevices
from gpufleet_api.names import RESOURCE
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.state import advance
from gpufleet_operator.ledger.verify import AllocationCheck, rejected_by_kubelet, verify_allocation
from gpufleet_operator.model.objects import Pod, PodPhase, Reservation
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make

RESERVED = ("GPU-1-0", "GPU-1-1")


class Report(TypedDict, total=False):
    age: float
    covered: int


def check(
    kubelet: tuple[str, ...],
    agent: tuple[str, ...],
    *,
    state: PassState | None = None,
    age: float = 1,
    covered: int | None = None,
    generation: int = 5,
) -> AllocationCheck:
    """Checks a pod with two reserved devices of three."""
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
    reservation = Reservation("node-1", assignment)
    return verify_allocation(make.snapshot(pod, telemetry), state or PassState(), pod, reservation)


CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Report, str]] = {
    "both report the devices": (RESERVED, RESERVED, {}, "Allocated"),
    "in another order": (RESERVED[::-1], RESERVED, {}, "Allocated"),
    "the kubelet reports them, the agent not yet": (RESERVED, (), {}, "Allocated"),
    "an older kubelet reports nothing, the agent reports them": ((), RESERVED, {}, "Allocated"),
    "the kubelet reports them, the agent is down": (RESERVED, (), {"age": 500}, "Allocated"),
    "the kubelet reports others": (("GPU-1-0", "GPU-1-2"), (), {}, "Mismatch"),
    "the kubelet reports fewer": (("GPU-1-0",), (), {}, "Mismatch"),
    "the agent reports others": (RESERVED, ("GPU-1-1", "GPU-1-2"), {}, "Mismatch"),
    "the agent reports others on an older kubelet": ((), ("GPU-1-2",), {}, "Mismatch"),
    "no mismatch by a report that does not cover the reservation": (
        ("GPU-1-2",),
        ("GPU-1-2",),
        {"covered": 4},
        "Bound",
    ),
    "no mismatch by stale telemetry": (("GPU-1-2",), (), {"age": 500}, "Bound"),
}


@pytest.mark.parametrize(("kubelet", "agent", "report", "state"), CASES.values(), ids=CASES.keys())
def test_check(kubelet: tuple[str, ...], agent: tuple[str, ...], report: Report, state: str) -> None:
    found = check(kubelet, agent, **report)

    assert found.state == state
    assert bool(found.message) == (state == "Mismatch")


def test_report_covers_a_reservation_by_its_first_generation() -> None:
    """The latest generation of the object may be younger."""
    seen = PassState(first_generation={"uid-train-0-a": ("node-1", 3)})

    assert check(("GPU-1-2",), (), covered=3, generation=9, state=seen).state == "Mismatch"


class TestContainerWithoutDevices:
    """On an older kubelet only the agent reports. The container was started 60 s before now."""

    def states(self, *reports: tuple[float, bool]) -> list[str]:
        """Returns the state after each report: seconds after the container's start, and whether it has the devices."""
        state, found = PassState(), []
        started = make.NOW - timedelta(seconds=60)
        pod = make.running_pod(containers=(Container("main", running=True, ran=True, started_at=started),))
        assignment = make.assignment(pod)
        for seconds, held in reports:
            holders = {"GPU-1-0": assignment} if held else {}
            telemetry = make.telemetry(assignments=[assignment], held=holders, age=60 - seconds)
            snapshot = make.snapshot(pod, telemetry, state=state)
            state = advance(snapshot)
            result = verify_allocation(snapshot, state, pod, Reservation("node-1", assignment))
            found.append(str(result.state))
        return found

    def test_two_reports_since_its_start_are_a_mismatch(self) -> None:
        assert self.states((1, False), (5, False), (12, False)) == ["Bound", "Bound", "Mismatch"]

    def test_one_report_is_not_enough(self) -> None:
        """The agent may have just started."""
        assert self.states((50, False)) == ["Bound"]
        assert self.states((20, True), (50, False), (55, False)) == ["Allocated", "Bound", "Bound"]

    def test_report_from_before_its_start_does_not_count(self) -> None:
        assert self.states((-20, False), (50, False), (55, False)) == ["Bound", "Bound", "Bound"]

    def test_report_with_its_devices_resets_the_count(self) -> None:
        assert self.states((5, False), (20, True), (30, False)) == ["Bound", "Allocated", "Bound"]

    def after(self, holder: Pod | None, *, was_allocated: bool) -> AllocationCheck:
        """Checks the container after two reports in which it holds nothing, and `holder` holds its device."""
        started = make.NOW - timedelta(seconds=60)
        pod = make.running_pod(containers=(Container("main", running=True, ran=True, started_at=started),))
        assignment = make.assignment(pod)
        reservation, state = Reservation("node-1", assignment), PassState()
        for age in (50, 30):
            held = {"GPU-1-0": holder} if holder else {}
            snapshot = make.snapshot(pod, make.telemetry(assignments=[assignment], held=held, age=age), state=state)
            state = advance(snapshot)
        return verify_allocation(snapshot, state, pod, reservation, was_allocated=was_allocated)

    def test_container_that_had_its_devices_keeps_them(self) -> None:
        """The kubelet's checkpoint is lost."""
        found = self.after(None, was_allocated=True)

        assert (found.state, found.unlisted) == ("Allocated", True)
        assert "kubelet lists no devices for the running container, which held GPU-1-0 before" in found.message

    def test_process_of_an_unlisted_pod_does_not_count_as_listed(self) -> None:
        """The agent keeps a pod as a holder while a process of it runs, which is no word of the kubelet."""
        started = make.NOW - timedelta(seconds=60)
        pod = make.running_pod(containers=(Container("main", running=True, ran=True, started_at=started),))
        assignment = make.assignment(pod)
        reservation, state = Reservation("node-1", assignment), PassState()
        for age in (50, 30):
            found = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment}, age=age)
            snapshot = make.snapshot(pod, make.with_terminating_holders(found), state=state)
            state = advance(snapshot)

        result = verify_allocation(snapshot, state, pod, reservation, was_allocated=True)

        assert (result.state, result.unlisted) == ("Allocated", True)

    def test_container_that_never_had_devices_is_a_mismatch(self) -> None:
        assert self.after(None, was_allocated=False).state == "Mismatch"

    def test_device_in_another_container_is_a_mismatch(self) -> None:
        found = self.after(make.pod("other"), was_allocated=True)

        assert (found.state, found.unlisted) == ("Mismatch", False)
        assert "without its reserved devices GPU-1-0, which ml/other-0-a holds" in found.message


REJECTIONS = {
    "the plugin's error": ("UnexpectedAdmissionError", False, True),
    "a resource is exhausted": ("OutOfcpu", False, True),
    "topology manager": ("TopologyAffinityError", False, True),
    "the node is shutting down": ("NodeShutdown", False, True),
    "it ran before": ("Evicted", True, False),
    "the application failed in an init container": ("", False, False),
    "the user's own limit": ("DeadlineExceeded", False, False),
}


@pytest.mark.parametrize(("reason", "ran", "expected"), REJECTIONS.values(), ids=REJECTIONS.keys())
def test_rejected_by_kubelet(reason: str, ran: bool, expected: bool) -> None:
    containers = (Container("main", ran=ran),)
    failed = make.released_pod(phase=PodPhase.FAILED, reason=reason, containers=containers)
    running = make.released_pod(phase=PodPhase.RUNNING, reason=reason, containers=containers)

    assert rejected_by_kubelet(failed) is expected
    assert not rejected_by_kubelet(running)


CONTAINERS = [{"name": "server", "count": 1}, {"name": "main", "count": 1}]
ONE, OTHER = ("GPU-1-0",), ("GPU-1-1",)


@pytest.mark.parametrize(
    ("server", "main", "state"),
    [
        (ONE, OTHER, PlacementState.ALLOCATED),
        (OTHER, ONE, PlacementState.MISMATCH),
        (ONE, (), PlacementState.BOUND),
    ],
    ids=["each its own", "exchanged", "one is not reported yet"],
)
def test_each_container_must_hold_its_own_devices(
    server: tuple[str, ...], main: tuple[str, ...], state: PlacementState
) -> None:
    def container(name: str, devices: tuple[str, ...]) -> Container:
        held = {RESOURCE: frozenset(devices)} if devices else {}
        return Container(name, running=True, ran=True, started_at=make.NOW, devices=held)

    pod = make.running_pod(containers=(container("main", main),), init_containers=(container("server", server),))
    assignment = make.assignment(pod, *RESERVED).model_copy(
        update={"containers": [ContainerDevices.model_validate(one) for one in CONTAINERS]}
    )
    telemetry = make.telemetry(devices=3, assignments=[assignment])

    found = verify_allocation(make.snapshot(pod, telemetry), PassState(), pod, Reservation("node-1", assignment))

    assert found.state is state


def test_sidecar_is_verified_by_the_agent_alone() -> None:
    running = Container("server", running=True, ran=True, started_at=make.NOW)
    pod = make.running_pod(containers=(), init_containers=(running,))
    assignment = make.assignment(pod, *RESERVED).model_copy(update={"container": "server"})
    telemetry = make.telemetry(devices=3, assignments=[assignment], held=dict.fromkeys(RESERVED, assignment))
    reservation = Reservation("node-1", assignment)
    status = make.telemetry_status(telemetry)
    held = [
        d.model_copy(update={"allocated_to": [h.model_copy(update={"container": "server"}) for h in d.allocated_to]})
        for d in status.devices
    ]
    changed = status.model_copy(update={"devices": held})
    telemetry = replace(telemetry, model=telemetry.model.model_copy(update={"status": changed}))

    found = verify_allocation(make.snapshot(pod, telemetry), PassState(), pod, reservation, kubelet_reports=True)

    assert (found.state, found.missing) == (PlacementState.ALLOCATED, "")
