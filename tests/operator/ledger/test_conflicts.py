"""Which reservations of a device exclude each other."""

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.names import Reclaim
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.ledger.conflicts import Occupancy
from gpufleet_operator.model.objects import Reservation
from gpufleet_testing.operator import make

Wish = tuple[int, int | None] | None
"""Memory and compute of a share; None: the whole device."""

SHARES = st.tuples(st.integers(1, 600), st.none() | st.integers(1, 60))


def on_node_1(assignment: Assignment) -> Reservation:
    return Reservation("node-1", assignment)


def shared(memory_mib: int) -> Assignment:
    return make.shared_assignment("b", memory_mib)


@given(st.lists(st.none() | SHARES, max_size=12))
def test_fitting_reservations_never_exceed_a_device_nor_mix_its_uses(wishes: list[Wish]) -> None:
    occupancy = Occupancy({("node-1", "GPU-1-0"): 1000})
    added: list[Assignment] = []
    for number, wish in enumerate(wishes):
        name = f"w{number}"
        one = make.assignment(make.pod(name)) if wish is None else make.shared_assignment(name, *wish)
        if occupancy.fits(on_node_1(one)):
            assert not occupancy.conflicts(on_node_1(one))
            occupancy.add(on_node_1(one))
            added.append(one)

    whole = [a for a in added if a.memory_mib is None]
    assert not whole or len(added) == 1
    assert sum(a.memory_mib or 0 for a in added) <= 1000
    assert sum(a.compute_percent or 0 for a in added) <= 100
    assert bool(added) == bool(wishes)


def test_shares_never_conflict_even_if_they_exceed_the_device() -> None:
    """A gated pod loses its reservation for that, but no running pod is deleted because a total was corrected."""
    occupancy = Occupancy({("node-1", "GPU-1-0"): 1000}, [on_node_1(make.shared_assignment("a", 800))])

    assert not occupancy.fits(on_node_1(shared(300)))
    assert not occupancy.conflicts(on_node_1(shared(300)))
    assert occupancy.fits(on_node_1(shared(200)))
    assert occupancy.fits(Reservation("node-2", shared(300))), "another node"
    assert occupancy.conflicts(on_node_1(make.assignment(make.pod())))


def test_reservation_by_learned_demand_counts_with_it() -> None:
    learned = make.shared_assignment("a", 800).model_copy(update={"demand_mib": 300})
    limits = {("node-1", "GPU-1-0"): 1000}
    occupancy = Occupancy(limits, [on_node_1(learned)])

    assert occupancy.fits(on_node_1(shared(700)))
    assert not occupancy.fits(on_node_1(shared(701)))
    assert Occupancy(limits, [on_node_1(shared(700))]).fits(on_node_1(learned))


def test_memory_that_others_may_get_does_not_count() -> None:
    reclaimable = make.shared_assignment("a", 800).model_copy(update={"reclaim": Reclaim.USED})
    occupancy = Occupancy({("node-1", "GPU-1-0"): 1000}, [on_node_1(reclaimable)])

    assert occupancy.fits(on_node_1(shared(1000)))
    occupancy.add(on_node_1(shared(700)))
    assert not occupancy.fits(on_node_1(shared(400)))
    assert occupancy.fits(on_node_1(shared(300)))
