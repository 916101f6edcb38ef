"""A container stays a holder until its pod has no process, whatever the kubelet lists."""

import asyncio
from dataclasses import replace

import pytest

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.kubelet_checkpoint import HeldDevices
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.podresources.terminating_pods import TerminatingPods
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.objects import assignment, listed

TRAIN = assignment("train-0", "GPU-0")


class Node:
    """The pods with a process, and the kubelet's checkpoint."""

    def __init__(self, *, sees_processes: bool = True) -> None:
        self.living: set[str] = set()
        self.stored: dict[HeldDevices, str] = {}
        self.asked: list[frozenset[str]] = []
        self.error: OSError | None = None
        self.terminating_pods = TerminatingPods(self._with_process, lambda: self.stored, sees_processes=sees_processes)

    def list(
        self, *listing: str, assignments: tuple[Assignment, ...] | None = (), allocated: tuple[Assignment, ...] = ()
    ) -> Listing:
        """Completes a list of pods with the device of the same number."""
        made = tuple(listed(pod, f"GPU-{pod.rpartition('-')[2]}") for pod in listing)
        return asyncio.run(self.terminating_pods.complete(made, assignments, allocated))

    def _with_process(self, uids: frozenset[str]) -> frozenset[str]:
        self.asked.append(uids)
        if self.error is not None:
            raise self.error
        return uids & self.living


def terminating(listing: Listing) -> list[str]:
    return [one.key.pod for one in listing if one.terminating]


def test_pod_that_left_the_list_is_kept_until_its_last_process_ends() -> None:
    node = Node()
    node.list("train-0", assignments=(TRAIN,))
    node.living = {"uid-train-0"}
    for _ in range(3):
        (kept,) = node.list(assignments=(TRAIN,))
        assert kept == replace(listed("train-0", "GPU-0"), pod_uid="uid-train-0", terminating=True)
    node.living = set()
    assert node.list(assignments=(TRAIN,)) == ()


def test_listed_pods_cost_no_look_at_processes() -> None:
    node = Node()
    for _ in range(2):
        node.list("train-0", "bare-1", assignments=(TRAIN,))
    assert node.asked == []
    node.list()
    node.list()
    assert node.asked == [{"uid-train-0"}], "an ended pod is looked up once"


def test_pod_without_reservation_is_known_by_the_kubelets_checkpoint() -> None:
    node = Node()
    node.stored = {("main", RESOURCE, frozenset({"GPU-1"})): "uid-of-bare"}
    node.living = {"uid-of-bare"}
    assert [one.pod_uid for one in node.list("bare-1")] == ["uid-of-bare"]
    assert terminating(node.list()) == ["bare-1"]


def test_checkpoint_is_read_only_if_the_kubelet_has_stored_something() -> None:
    held, reads = ("main", RESOURCE, frozenset({"GPU-1"})), 0
    known: list[dict[HeldDevices, str] | None] = [None, {}, {held: "uid-known"}]

    def read() -> dict[HeldDevices, str]:
        nonlocal reads
        reads += 1
        return {held: "uid-read"}

    pods = TerminatingPods(lambda _: frozenset(), read, lambda: known.pop(0), sees_processes=True)
    uids = [asyncio.run(pods.complete((listed("bare-1", "GPU-1"),), ()))[0].pod_uid for _ in range(3)]
    assert uids == ["uid-read", None, "uid-known"]
    assert reads == 1


def test_pod_that_left_while_no_agent_ran_is_found_by_its_reservation() -> None:
    node = Node()
    node.living = {"uid-train-0"}
    assert terminating(node.list(assignments=(TRAIN,))) == ["train-0"]


def test_reserved_pod_that_has_not_started_is_looked_up_once() -> None:
    node = Node()
    for _ in range(3):
        assert node.list(assignments=(TRAIN,)) == ()
    assert node.asked == [{"uid-train-0"}]


def test_pod_that_was_allocated_and_left_between_two_lists_is_kept() -> None:
    node = Node()
    node.list(assignments=(TRAIN,))
    node.living = {"uid-train-0"}
    assert terminating(node.list(assignments=(), allocated=(TRAIN,))) == ["train-0"]


def test_later_pod_of_the_same_name_is_not_the_departed_one() -> None:
    node = Node()
    node.list("train-0", assignments=(TRAIN,))
    node.living = {"uid-train-0"}
    later = assignment("train-0", "GPU-1", pod_uid="uid-later")
    listing = asyncio.run(node.terminating_pods.complete((listed("train-0", "GPU-1"),), (later,)))
    assert [(one.pod_uid, one.terminating) for one in listing] == [("uid-later", False), ("uid-train-0", True)]


def test_list_is_incomplete_before_reservations_are_read() -> None:
    node = Node()
    assert not node.terminating_pods.observed
    node.list("train-0", assignments=None)
    assert not node.terminating_pods.observed, "a reserved pod may have left earlier"


def test_unreadable_proc_keeps_holders() -> None:
    node = Node()
    node.list("train-0", assignments=(TRAIN,))
    assert node.terminating_pods.observed
    failing = Node()
    failing.list("train-0", assignments=(TRAIN,))
    failing.error = PermissionError("hidepid")
    assert terminating(failing.list(assignments=(TRAIN,))) == ["train-0"]
    assert not failing.terminating_pods.observed


def test_agent_without_the_hosts_processes_adds_nothing() -> None:
    node = Node(sees_processes=False)
    node.list("train-0", assignments=(TRAIN,))
    node.living = {"uid-train-0"}
    assert node.list(assignments=(TRAIN,)) == ()
    assert not node.terminating_pods.observed


@pytest.mark.parametrize("reservations", [(TRAIN,), ()], ids=["reserved", "reservation removed"])
def test_departed_container_is_a_terminating_holder_with_its_uid(reservations: tuple[Assignment, ...]) -> None:
    node, holdings = Node(), Holdings(SHARED_RESOURCE)
    holdings.update(node.list("train-0", assignments=(TRAIN,)), 1.0)
    (held,) = holdings.holders(reservations)["GPU-0"]
    assert not held.terminating
    node.living = {"uid-train-0"}
    assert holdings.update(node.list(assignments=reservations), 2.0), "operator and plugin must learn it"
    (held,) = holdings.holders(reservations)["GPU-0"]
    assert (held.terminating, held.pod_uid) == (True, "uid-train-0")
