import os
from pathlib import Path

import pytest

from gpufleet_agent.processes.pods_with_process import pods_with_process, sees_node_processes

A, B, C = (f"6a9d8b1c-0000-4000-8000-00000000000{digit}" for digit in "abc")


def process(proc: Path, pid: int, pod: str, state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cgroup").write_text(f"0::/kubepods/burstable/pod{pod}/0123456789abcdef\n")
    (folder / "stat").write_text(f"{pid} (sh (odd) name) {state} 1 1 1 0 -1\n")


def test_pods_with_a_process_are_found(tmp_path: Path) -> None:
    process(tmp_path, 11, A)
    process(tmp_path, 12, B)
    (tmp_path / "self").mkdir()
    (tmp_path / "13").mkdir()  # has ended
    assert pods_with_process(frozenset({A, C}), tmp_path) == {A}


@pytest.mark.parametrize("state", ["Z", "X"])
def test_zombie_does_not_keep_its_pod_alive(tmp_path: Path, state: str) -> None:
    process(tmp_path, 11, A, state)
    assert pods_with_process(frozenset({A}), tmp_path) == frozenset()
    process(tmp_path, 12, A)
    assert pods_with_process(frozenset({A}), tmp_path) == {A}


def test_unreadable_proc_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        pods_with_process(frozenset({A}), tmp_path / "missing")


def test_the_real_proc_is_readable() -> None:
    assert pods_with_process(frozenset({A})) == frozenset()


def test_first_process_of_its_namespace_sees_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sees_node_processes()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert not sees_node_processes()
