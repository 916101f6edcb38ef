from proof import Holding
from support.watchdog import double_holders


def holding(pod: str, *devices: str) -> Holding:
    return Holding("node-1", "ml", pod, "main", "gpufleet.dev/gpu", devices)


def test_both_holders_of_a_device_are_named() -> None:
    found = double_holders((holding("a", "GPU-1", "GPU-2"), holding("b", "GPU-3"), holding("c", "GPU-2")))
    assert found == {"GPU-2": ["ml/a/main", "ml/c/main"]}


def test_a_device_that_one_container_lists_once_is_fine() -> None:
    assert double_holders((holding("a", "GPU-1"), holding("b", "GPU-2"))) == {}
