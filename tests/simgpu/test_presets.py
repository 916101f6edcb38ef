import pytest

from gpufleet_simgpu.presets import make_node


@pytest.mark.parametrize(
    ("model", "reserved"),
    [("t4", 388), ("a100-40", 605), ("a100", 869), ("l40s", 609), ("h100", 479), ("h200", 614)],
)
def test_reserved_memory_of_presets_is_as_recorded(model: str, reserved: int) -> None:
    assert make_node(model, 1).gpus[0].memory_reserved_mib == reserved
