from gpufleet_agent.podresources.holdings import HoldingContainer, Holdings, OtherHolder, holders_of, other_holders_of
from gpufleet_agent.podresources.listing import SHARED_BY_CLAIM, ContainerKey, ListedContainer
from gpufleet_api.names import DRA_DRIVER, RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.objects import AssignmentFields, assignment, listed


def key(pod: str) -> ContainerKey:
    return ContainerKey("ml", pod, "main")


def test_holder_uid_is_of_the_reservation_with_same_container_and_devices() -> None:
    listing = (listed("train-0", "GPU-0", "GPU-1"), listed("bare", "GPU-2"))
    holders = holders_of(listing, SHARED_RESOURCE, {}, [assignment("train-0", "GPU-1", "GPU-0")])
    managed, bare = HoldingContainer(key("train-0"), "uid-train-0"), HoldingContainer(key("bare"))
    assert holders == {"GPU-0": (managed,), "GPU-1": (managed,), "GPU-2": (bare,)}


def test_later_pod_of_the_same_name_is_not_the_holder() -> None:
    holders = holders_of(
        (listed("db-0", "GPU-0"),), SHARED_RESOURCE, {}, [assignment("db-0", "GPU-5", pod_uid="uid-later")]
    )
    assert holders == {"GPU-0": (HoldingContainer(key("db-0")),)}


def test_what_was_honored_counts_more_than_a_reservation_with_another_uid() -> None:
    honored = {key("db-0"): assignment("db-0", "GPU-0", pod_uid="uid-honored")}
    later = [assignment("db-0", "GPU-0", pod_uid="uid-later")]
    holders = holders_of((listed("db-0", "GPU-0"),), SHARED_RESOURCE, honored, later)
    assert holders["GPU-0"][0].pod_uid == "uid-honored"


def test_all_holders_of_a_device_are_listed_even_of_another_plugin() -> None:
    listing = (listed("b", "GPU-0"), listed("a", "GPU-0::3", resource="nvidia.com/gpu"))
    assert holders_of(listing, SHARED_RESOURCE, {}, []) == {
        "GPU-0": (HoldingContainer(key("a")), HoldingContainer(key("b")))
    }


def test_other_holders_have_devices_by_plugins_and_other_drivers() -> None:
    listing = (
        listed("whole", "GPU-0", "GPU-1"),
        listed("share", "GPU-1::2", "GPU-1::3", resource=SHARED_RESOURCE),
        listed("foreign", "GPU-2", resource="gpu.nvidia.com"),
        listed("own", "GPU-3", resource=DRA_DRIVER),
        listed("own-share", "GPU-4", resource=SHARED_BY_CLAIM),
    )
    assert other_holders_of(listing, SHARED_RESOURCE) == {
        "GPU-0": (OtherHolder(key("whole"), RESOURCE),),
        "GPU-1": (OtherHolder(key("whole"), RESOURCE), OtherHolder(key("share"), SHARED_RESOURCE, shared=True)),
        "GPU-2": (OtherHolder(key("foreign"), "gpu.nvidia.com"),),
    }


def test_holders_of_slots_are_sharers_with_what_they_were_promised() -> None:
    promised: AssignmentFields = {"resource": SHARED_RESOURCE, "memory_mib": 4000, "compute_percent": 25}
    first, second = assignment("first", "GPU-0", "GPU-1", **promised), assignment("second", "GPU-1", **promised)
    listing = (
        listed("first", "GPU-0::0", "GPU-1::0", resource=SHARED_RESOURCE),
        listed("second", "GPU-1::7", resource=SHARED_RESOURCE),
        listed("bare", "GPU-1::2", resource=SHARED_RESOURCE),
    )
    holders = holders_of(listing, SHARED_RESOURCE, {key("first"): first}, [second])
    shares = {pod: HoldingContainer(key(pod), f"uid-{pod}", True, 4000, 25) for pod in ("first", "second")}
    assert holders == {
        "GPU-0": (shares["first"],),
        "GPU-1": (HoldingContainer(key("bare"), shared=True), shares["first"], shares["second"]),
    }


def test_an_assignment_of_the_other_resource_is_not_what_the_container_holds() -> None:
    whole = [assignment("train-0", "GPU-0")]
    holders = holders_of((listed("train-0", "GPU-0::0", resource=SHARED_RESOURCE),), SHARED_RESOURCE, {}, whole)
    assert holders == {"GPU-0": (HoldingContainer(key("train-0"), shared=True),)}


def test_a_container_shows_once_even_with_a_device_of_two_resources() -> None:
    twice = ListedContainer(key("odd"), {"a.dev/gpu": frozenset({"GPU-0"}), "b.dev/gpu": frozenset({"GPU-0"})})
    assert holders_of((twice,), SHARED_RESOURCE, {}, []) == {"GPU-0": (HoldingContainer(key("odd")),)}


def test_holder_keeps_its_uid_after_the_reservation_is_gone() -> None:
    holdings = Holdings(SHARED_RESOURCE)
    holdings.add(assignment("train-0", "GPU-0"))
    assert holdings.allocated_uids == {"uid-train-0"}
    assert holdings.update((listed("train-0", "GPU-0"),), 1.0)
    assert holdings.holders(())["GPU-0"][0].pod_uid == "uid-train-0"
    assert holdings.update((), 2.0)
    assert holdings.allocated_uids == frozenset()
    assert holdings.holders(()) == {}


def test_an_allocation_that_the_kubelet_gave_up_is_forgotten() -> None:
    holdings = Holdings(SHARED_RESOURCE)
    holdings.add(assignment("train-0", "GPU-0"))
    holdings.update((listed("train-0"),), 1.0)
    assert holdings.allocated_uids == frozenset()


def test_the_same_facts_in_another_order_are_no_news() -> None:
    holdings = Holdings(SHARED_RESOURCE)
    a, b = listed("a", "GPU-0"), listed("b", "GPU-1")
    assert holdings.update((a, b), 1.0)
    assert not holdings.update((b, a), 2.0)
    assert holdings.listed_at == 2.0


def test_incomplete_list_removes_no_holder_and_adds_those_in_it() -> None:
    holdings = Holdings(SHARED_RESOURCE)
    reserved = assignment("a", "GPU-0")
    holdings.add(reserved)
    assert holdings.update((), 1.0, complete=False) is False
    reported = [holdings.listed_at]
    assert holdings.update((listed("a", "GPU-0"), listed("b", "GPU-1"), listed("bare")), 2.0)
    assert holdings.update((listed("b"), listed("c", "GPU-1")), 3.0, complete=False)
    held = holdings.holders(())
    assert {uuid: [holder.key.pod for holder in holders] for uuid, holders in held.items()} == {
        "GPU-0": ["a"],
        "GPU-1": ["c"],
    }
    assert held["GPU-0"][0].pod_uid == "uid-a", "who it was given to is remembered, too"
    assert {one.key.pod for one in holdings.listing} == {"a", "b", "c"}, "a pod without devices isn't made up"
    assert [*reported, holdings.listed_at] == [None, 2.0]
    assert holdings.update((), 4.0)
    assert holdings.holders(()) == {}
    assert holdings.allocated_uids == frozenset()


def test_the_first_complete_list_is_news_even_if_it_is_empty() -> None:
    holdings = Holdings(SHARED_RESOURCE)
    assert holdings.update((), 1.0)
    assert not holdings.update((), 2.0)
