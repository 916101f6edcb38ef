from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufleet_e2e.proof import EvidenceError, Holding
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.watchdog import (
    Holders,
    Watchdog,
    double_allocations,
    holders_by_kubelets,
    holders_by_processes,
)


def holding(pod: str, *devices: str) -> Holding:
    return Holding("node-1", "ml", pod, "main", "gpufleet.dev/gpu", devices)


def test_both_holders_of_a_device_are_named() -> None:
    found = double_allocations(
        holders_by_kubelets((holding("a", "GPU-1", "GPU-2"), holding("b", "GPU-3"), holding("c", "GPU-2")))
    )
    assert found == {"GPU-2": ["ml/a/main", "ml/c/main"]}


def test_slots_exclude_a_holder_of_the_whole_device() -> None:
    shared = (holding("a", "GPU-1::0"), holding("b", "GPU-1::1"), holding("c", "GPU-2"))
    assert double_allocations(holders_by_kubelets(shared)) == {}
    assert double_allocations(holders_by_kubelets((*shared, holding("d", "GPU-1::1")))) == {
        "GPU-1::1": ["ml/b/main", "ml/d/main"]
    }
    assert double_allocations(holders_by_kubelets((*shared, holding("d", "GPU-1")))) == {
        "GPU-1": ["ml/d/main", "ml/a/main", "ml/b/main"]
    }


def test_containers_of_a_pod_that_share_a_claim_are_one_holder() -> None:
    """The kubelet lists all devices of a claim for each container that uses one of its requests."""
    both = [Holding("node-1", "ml", "a", name, "gpu.gpufleet.dev", ("GPU-1", "GPU-2")) for name in ("main", "side")]
    assert double_allocations(holders_by_kubelets(both)) == {}
    other = Holding("node-1", "ml", "b", "main", "gpu.gpufleet.dev", ("GPU-2",))
    assert double_allocations(holders_by_kubelets((*both, other))) == {"GPU-2": ["ml/a", "ml/b"]}


def test_a_device_that_one_container_lists_once_is_fine() -> None:
    assert double_allocations(holders_by_kubelets((holding("a", "GPU-1"), holding("b", "GPU-2")))) == {}


def test_processes_of_one_pod_are_one_holder(tmp_path: Path) -> None:
    first, replacement = (f"6a9d8b1c-0000-4000-8000-00000000000{digit}" for digit in "ab")
    for pid, pod, uid in (
        ("7", "churn-0", first),
        ("8", "churn-0", first),
        ("9", "churn-1", first),
        ("12", "churn-1", replacement),
        ("10", "demo-0", first),
        ("net", "churn-9", first),
    ):
        (tmp_path / pid).mkdir()
        text = f"PATH=/bin\0HOSTNAME={pod}\0NVIDIA_VISIBLE_DEVICES=GPU-{pod}\0"
        (tmp_path / pid / "environ").write_text(text, encoding="utf-8")
        (tmp_path / pid / "cgroup").write_text(f"0::/kubepods/burstable/pod{uid}/0123\n", encoding="utf-8")
    (tmp_path / "11").mkdir()  # ended before its environment could be read
    assert holders_by_processes("churn-", tmp_path) == {
        "GPU-churn-0": [f"churn-0 ({first})"],
        "GPU-churn-1": [f"churn-1 ({first})", f"churn-1 ({replacement})"],
    }


def test_violation_is_reported_after_it_has_passed() -> None:
    looks: Iterator[Holders | EvidenceError] = iter(
        [{"GPU-1": ["a"]}, EvidenceError("the kubelet is away"), {"GPU-1": ["a", "b"]}]
    )

    def look() -> Holders:
        seen = next(looks, {"GPU-1": ["b"], "GPU-2": ["c"]})
        if isinstance(seen, EvidenceError):
            raise seen
        return seen

    def seen_all() -> None:
        assert watchdog.max_in_use == 2

    with Watchdog(look, every_seconds=0.001) as watchdog:
        eventually(seen_all, within=5, every=0.001)
        with pytest.raises(AssertionError, match="GPU-1 was held by a and b"):
            watchdog.check()
        watchdog.check()
