from gpufleet_common.device_ids import device_of, slot_ids, slot_order


def test_slot_ids_name_their_device_and_sort_by_number() -> None:
    ids = slot_ids("GPU-1", 12)
    assert ids[7] == "GPU-1::7"
    assert {device_of(device_id) for device_id in (*ids, "GPU-1")} == {"GPU-1"}
    assert sorted(set(ids), key=slot_order) == list(ids)


def test_slot_order_starts_with_ids_without_a_number() -> None:
    assert sorted(["G::10", "G::9", "G", "G::x"], key=slot_order) == ["G", "G::x", "G::9", "G::10"]
