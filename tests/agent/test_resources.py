from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.resources import Served
from gpufleet_common.device_ids import device_of, slot_order
from gpufleet_testing.hypothesis_profiles import examples


@examples(30)
@given(st.sampled_from(["GPU-5e4a", "MIG-77"]), st.integers(0, 64))
def test_each_device_id_names_its_device(uuid: str, slots: int) -> None:
    ids = Served("example.com/gpu", slots).ids(uuid)
    assert len(set(ids)) == max(1, slots)
    assert {device_of(device_id) for device_id in ids} == {uuid}
    assert sorted(ids, key=slot_order) == list(ids)


def test_slots_are_ordered_by_number_with_unknown_ids_first() -> None:
    assert sorted(["G::10", "G::9", "G", "G::x"], key=slot_order) == ["G", "G::x", "G::9", "G::10"]
