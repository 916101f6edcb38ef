"""Which reservations stand, linger, or are free."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from gpufleet_operator.decide import state
from gpufleet_operator.ledger import ledger
from gpufleet_operator.model.objects import PodDeletion, PodPhase
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_testing.operator import make


def read(snapshot: Snapshot) -> ledger.Ledger:
    return ledger.read_ledger(snapshot.with_memory(state.observe(snapshot)))


def fates(found: ledger.Ledger) -> tuple[set[str], set[str], set[str]]:
    return (
        set(found.live),
        {e.assignment.pod_uid for e in found.terminating},
        {e.assignment.pod_uid for e in found.free},
    )


def test_a_live_pods_reservation_stands_wherever_the_pod_is_on_its_way() -> None:
    gated, released, running = make.pod("a"), make.released_pod("b"), make.running_pod("c")
    assignments = [make.assignment(p, f"GPU-1-{i}") for i, p in enumerate((gated, released, running))]

    found = read(make.snapshot(gated, released, running, make.telemetry(devices=3, assignments=assignments)))

    assert fates(found) == ({gated.uid, released.uid, running.uid}, set(), set())


class TestGone:
    """The pod object is gone; what of the container?"""

    def snapshot(
        self,
        *,
        held: bool = False,
        age: float = 1.0,
        deleted_pods: Mapping[str, PodDeletion] | None = None,
        without_nodes: tuple[str, ...] = (),
    ) -> Snapshot:
        pod = make.running_pod()
        assignment = make.assignment(pod)
        holder = {"GPU-1-0": assignment} if held else {}
        telemetry = make.telemetry(assignments=[assignment], held=holder, age=age)
        return make.snapshot(telemetry, deleted_pods=deleted_pods or {}, without_nodes=without_nodes)

    uid = "uid-train-0-a"

    def test_it_lives_as_long_as_the_agent_says(self) -> None:
        assert fates(read(self.snapshot(held=True))) == (set(), {self.uid}, set())

    def fate(self, first: Snapshot, later: Snapshot | None = None, seconds: float = 0) -> str:
        """What becomes of it so many seconds after `first`, when the cluster is as in `later`."""
        memory = state.observe(first)
        then = replace(later or first, now=first.now + timedelta(seconds=seconds))
        _, terminating, free = fates(read(then.with_memory(memory)))
        assert terminating | free == {self.uid}
        return "lingers" if terminating else "free"

    def test_a_pod_that_is_over_is_free_when_a_report_drops_it(self) -> None:
        over = {self.uid: PodDeletion.OVER}
        shown, dropped = self.snapshot(held=True, deleted_pods=over), self.snapshot(deleted_pods=over)

        assert self.fate(shown, shown, 60) == "lingers"
        assert self.fate(shown, dropped) == "free"

    def test_a_pod_that_is_over_is_free_by_a_report_from_after_that(self) -> None:
        over = {self.uid: PodDeletion.OVER}
        before, after = self.snapshot(deleted_pods=over), self.snapshot(deleted_pods=over, age=0)

        assert self.fate(before) == "lingers", "the report may be older than its allocation"
        assert self.fate(before, after) == "free"

    def test_a_pod_that_is_over_is_free_when_the_agent_had_time_to_tell(self) -> None:
        over = self.snapshot(deleted_pods={self.uid: PodDeletion.OVER})

        assert self.fate(over, seconds=4.9) == "lingers"
        assert self.fate(over, seconds=5) == "free"

    @pytest.mark.parametrize("departed", [{}, {uid: PodDeletion.FORCED}], ids=["operator was away", "forced"])
    class TestWithoutTheKubeletsWord:
        """Its container may run: nobody has told that it is over."""

        def test_an_agent_that_is_cut_off_tells_nothing_by_its_silence(
            self, deleted_pods: dict[str, PodDeletion]
        ) -> None:
            """The report is older than the grant; the container runs on, on a node that nobody reaches."""
            outer = TestGone()
            assert outer.fate(outer.snapshot(deleted_pods=deleted_pods), seconds=60) == "lingers"

        def test_a_later_report_frees_it_when_the_container_has_had_time_to_die(
            self, deleted_pods: dict[str, PodDeletion]
        ) -> None:
            outer = TestGone()
            before, after = outer.snapshot(deleted_pods=deleted_pods), outer.snapshot(deleted_pods=deleted_pods, age=0)
            memory = state.observe(
                replace(after, now=make.NOW + timedelta(seconds=20)).with_memory(state.observe(before))
            )
            told = replace(after, now=make.NOW + timedelta(seconds=20)).with_memory(memory)

            assert outer.fate(before, after, 20) == "lingers", "told a moment ago"
            assert outer.fate(told, seconds=4.9) == "lingers"
            assert outer.fate(told, seconds=5) == "free"

        def test_a_report_that_dropped_it_counts_from_then(self, deleted_pods: dict[str, PodDeletion]) -> None:
            outer = TestGone()
            shown = outer.snapshot(held=True, deleted_pods=deleted_pods)
            dropped = outer.snapshot(deleted_pods=deleted_pods, age=0)
            told = dropped.with_memory(state.observe(dropped.with_memory(state.observe(shown))))

            assert outer.fate(told, seconds=4.9) == "lingers"
            assert outer.fate(told, seconds=5) == "free"

        def test_a_report_that_missed_it_while_it_lived_counts_for_nothing(
            self, deleted_pods: dict[str, PodDeletion]
        ) -> None:
            """The agent had just started; its next report is the first one that tells anything."""
            outer, pod = TestGone(), make.running_pod()
            shown, missed = outer.snapshot(held=True), outer.snapshot(age=0.5)
            alive = {pod.uid: pod}
            memory = state.observe(replace(shown, pods=alive))
            memory = state.observe(replace(missed, pods=alive).with_memory(memory))
            gone = replace(missed, deleted_pods=deleted_pods).with_memory(memory)

            assert outer.fate(gone, seconds=60) == "lingers"
            later = outer.snapshot(deleted_pods=deleted_pods, age=0)
            assert outer.fate(gone, later, 60) == "lingers", "told a moment ago"
            memory = state.observe(later.with_memory(state.observe(gone)))
            assert outer.fate(later.with_memory(memory), seconds=5) == "free"

        def test_a_report_that_shows_it_again_starts_afresh(self, deleted_pods: dict[str, PodDeletion]) -> None:
            outer = TestGone()
            shown, dropped = (
                outer.snapshot(held=True, deleted_pods=deleted_pods),
                outer.snapshot(deleted_pods=deleted_pods),
            )
            memory = state.observe(dropped.with_memory(state.observe(shown)))

            assert outer.fate(shown.with_memory(memory), dropped, 5) == "lingers"

    def test_stale_telemetry_proves_nothing(self) -> None:
        over = {self.uid: PodDeletion.OVER}
        assert self.fate(self.snapshot(age=200, deleted_pods=over), seconds=60) == "lingers"

    def test_a_pod_that_left_before_it_was_bound_never_had_anything(self) -> None:
        assert fates(read(self.snapshot(age=200, deleted_pods={self.uid: PodDeletion.NEVER_BOUND}))) == (
            set(),
            set(),
            {self.uid},
        )

    def test_a_node_that_is_gone_has_no_containers(self) -> None:
        assert fates(read(self.snapshot(held=True, without_nodes=("node-1",)))) == (set(), set(), {self.uid})

    def test_an_agent_that_does_not_know_the_uid_is_understood_by_name(self) -> None:
        pod = make.running_pod()
        assignment = make.assignment(pod)
        telemetry = make.telemetry(
            assignments=[assignment], held={"GPU-1-0": assignment.model_copy(update={"pod_uid": None})}
        )

        found = read(make.snapshot(telemetry, memory=PassState(held=frozenset({pod.uid}))))

        assert fates(found) == (set(), {pod.uid}, set())


@pytest.mark.parametrize("phase", [PodPhase.SUCCEEDED, PodPhase.FAILED])
def test_a_pod_that_is_over_keeps_its_devices_until_the_agent_shows_them_free(phase: PodPhase) -> None:
    pod = make.running_pod(phase=phase)
    assignment = make.assignment(pod)
    still = make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment})
    free = make.telemetry(assignments=[assignment])

    first = make.snapshot(pod, still)
    memory = state.observe(first)

    assert fates(read(first)) == (set(), {pod.uid}, set())
    assert fates(read(make.snapshot(pod, free, memory=memory))) == (set(), set(), {pod.uid})


def test_a_refused_pod_frees_its_devices_at_once() -> None:
    pod = make.released_pod(node="node-1", phase=PodPhase.FAILED, reason="UnexpectedAdmissionError")

    assert fates(read(make.snapshot(pod, make.telemetry(assignments=[make.assignment(pod)])))) == (
        set(),
        set(),
        {pod.uid},
    )


def test_a_reservation_on_a_node_where_the_pod_can_not_run_is_free() -> None:
    pod = make.released_pod(to="node-2")
    one, two = (make.telemetry(n, assignments=[make.assignment(pod, f"GPU-{n[-1]}-0")]) for n in ("node-1", "node-2"))

    found = read(make.snapshot(pod, one, two))

    assert found.live[pod.uid].node == "node-2"
    assert [e.node for e in found.free] == ["node-1"]


def test_of_two_reservations_of_a_gated_pod_the_older_one_stands() -> None:
    pod = make.pod()
    older = make.assignment(pod, "GPU-2-0", decided_at="2026-01-01T00:00:00.000000Z")
    found = read(
        make.snapshot(
            pod,
            make.telemetry("node-1", assignments=[make.assignment(pod)]),
            make.telemetry("node-2", assignments=[older]),
        )
    )

    assert found.live[pod.uid].node == "node-2"
    assert [e.node for e in found.free] == ["node-1"]


def test_one_device_reserved_twice_goes_to_the_older_and_the_younger_is_named() -> None:
    old, young, gated = make.running_pod("old"), make.running_pod("young"), make.pod("gated")
    assignments = [
        make.assignment(old, decided_at="2026-01-01T00:00:00.000000Z"),
        make.assignment(young, decided_at="2026-01-01T00:00:01.000000Z"),
        make.assignment(gated, decided_at="2026-01-01T00:00:02.000000Z"),
    ]

    found = read(make.snapshot(old, young, gated, make.telemetry(assignments=assignments)))

    assert found.conflicted == {young.uid}
    assert fates(found) == ({old.uid, young.uid}, set(), {gated.uid})
