"""How reservations and holders of one device add up, and which reservations can stand beside each other."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import SHARED_RESOURCE
from gpufleet_api.telemetry import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import NodeInfo, node_state
from gpufleet_operator.ledger.conflicts import Occupancy
from gpufleet_operator.ledger.device_usage import DeviceUsage, usage_of
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make
from gpufleet_testing.operator.fields import AssignmentFields

SLOT = PodNeeds(extended={SHARED_RESOURCE: 1})


def share(name: str, memory: int = 1000, compute: int | None = None, ago: float = 25) -> Assignment:
    """A reservation of a part of GPU-1-0, decided so many seconds ago."""
    decided = timestamps.micros(make.NOW - timedelta(seconds=ago))
    given: AssignmentFields = {
        "memory_mib": memory,
        "compute_percent": compute,
        "resource": SHARED_RESOURCE,
        "decided_at": decided,
    }
    return make.assignment(make.pod(name), "GPU-1-0", **given)


def use(reserved: Sequence[Assignment], held: Sequence[Assignment | Pod], *, age: float = 1) -> DeviceUsage:
    """Of a device that was measured `age` seconds ago."""
    device = make.telemetry_status(make.telemetry(held={"GPU-1-0": held})).devices[0]
    return usage_of(device, reserved, make.NOW - timedelta(seconds=age))


def test_nobody() -> None:
    assert use([], []) == DeviceUsage()


def test_a_whole_device() -> None:
    whole = make.assignment(make.pod())
    stranger = make.pod("other")

    assert use([whole], []) == use([whole], [whole]) == use([], [stranger]) == DeviceUsage(held=True)


def test_a_reservation_and_its_holder_count_once() -> None:
    one, two = share("a", 1000, 10), share("b", 500)

    expected = DeviceUsage(sharers=2, promised_memory_mib=1500, promised_compute_percent=10)
    assert use([one, two], []) == use([one, two], [one]) == use([one, two], [one, two]) == expected


def test_what_was_decided_after_the_sample_is_in_flight() -> None:
    old, new = share("a", 1000, 10, ago=25), share("b", 500, 5, ago=3)

    found = use([old, new], [old], age=10)

    assert (found.promised_memory_mib, found.in_flight_memory_mib) == (1000, 500)
    assert (found.promised_compute_percent, found.in_flight_compute_percent) == (10, 5)


def test_a_holder_without_reservation_keeps_what_it_was_promised() -> None:
    """The node's object was made anew, or the pod asked by itself: then nothing is promised, and it shares as well."""
    earlier, unmanaged = share("a", 1000), make.pod("x", needs=SLOT)

    assert use([], [earlier]) == DeviceUsage(sharers=1, promised_memory_mib=1000)
    assert use([], [unmanaged]) == DeviceUsage(sharers=1)
    assert use([share("b", 10)], [earlier, unmanaged]) == DeviceUsage(sharers=3, promised_memory_mib=1010)


def test_one_who_holds_it_as_a_whole_outweighs_all_sharers() -> None:
    assert use([share("a")], [make.pod("x")]) == DeviceUsage(held=True)


@pytest.mark.parametrize(("slots", "free"), [(3, 1), (2, 0), (1, 0)])
def test_a_device_has_as_many_slots_left_as_nobody_holds(slots: int, free: int) -> None:
    telemetry = make.telemetry(assignments=[share("a")], held={"GPU-1-0": [make.pod("x", needs=SLOT)]}).model

    state = node_state(telemetry, NodeInfo(), age_seconds=2, stale_after_seconds=90, slots=slots)

    assert state.devices[0].free_slots == free


def test_the_clock_of_a_node_does_not_decide_what_is_in_flight() -> None:
    """An hour slow: every reservation would seem newer than every sample, for ever."""
    moment = timestamps.micros(make.NOW - timedelta(hours=1))
    telemetry = make.telemetry(assignments=[share("a", ago=25)], sampleTime=moment)
    wrong = {"observed_at": moment, "sample_time": moment}
    status = make.telemetry_status(telemetry).model_copy(update=wrong)
    model = telemetry.model.model_copy(update={"status": status})

    state = node_state(model, NodeInfo(), age_seconds=2, stale_after_seconds=90, now=make.NOW)

    assert (state.devices[0].promised_memory_mib, state.devices[0].in_flight_memory_mib) == (1000, 0)


Wish = tuple[int, int | None] | None
PART = st.tuples(st.integers(1, 600), st.none() | st.integers(1, 60))


@given(st.lists(st.none() | PART, max_size=12))
def test_reservations_that_fit_never_exceed_a_device_nor_mix_its_uses(
    wishes: list[Wish],
) -> None:
    claims = Occupancy({("node-1", "GPU-1-0"): 1000})
    taken: list[Assignment] = []
    for number, wish in enumerate(wishes):
        one = make.assignment(make.pod(f"w{number}")) if wish is None else share(f"w{number}", *wish)
        if claims.fits("node-1", one):
            assert not claims.clashes("node-1", one)
            claims.add("node-1", one)
            taken.append(one)

    whole = [a for a in taken if a.memory_mib is None]
    assert not whole or len(taken) == 1
    assert sum(a.memory_mib or 0 for a in taken) <= 1000
    assert sum(a.compute_percent or 0 for a in taken) <= 100
    assert bool(taken) == bool(wishes)


def test_parts_beside_each_other_never_clash_even_when_too_much_is_promised() -> None:
    """Only a gated pod loses its reservation for that; one that runs is not deleted because a total was corrected."""
    claims = Occupancy({("node-1", "GPU-1-0"): 1000})
    claims.add("node-1", share("a", 800))

    assert not claims.fits("node-1", share("b", 300))
    assert not claims.clashes("node-1", share("b", 300))
    assert claims.fits("node-1", share("b", 200))
    assert claims.fits("node-2", share("b", 300)), "another node"
    assert claims.clashes("node-1", make.assignment(make.pod()))
