"""A start that ends with an error while a thread boots a node."""

import ipaddress
import os
import threading
from concurrent.futures import Executor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpufleet_testbed.local import start as module
from gpufleet_testbed.local.layout import Layout, cgroup_name, lock_file
from gpufleet_testbed.local.processes.cgroups import Hierarchy
from gpufleet_testbed.local.processes.lock import Lock


def test_what_a_thread_creates_after_the_cleanup_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster-x", "x", ipaddress.IPv4Network("10.1.0.0/16"), 1)
    tree, cut = Hierarchy(tmp_path / "cgroup", 1, frozenset()), threading.Event()
    cgroup = tree.mount / cgroup_name(layout.root)
    path = lock_file(layout.root)
    lock = Lock(path, os.open(path, os.O_RDWR | os.O_CREAT))

    class Monitor:
        def cut(self) -> None:
            """Cleans up, and ends."""
            cut.set()
            lock.remove()

    def boot() -> None:
        cut.wait(10)
        (cgroup / "node").mkdir(parents=True)
        layout.root.mkdir(exist_ok=True)

    def start_all(units: object, images: object, lifeline: object, pool: Executor) -> None:
        pool.submit(boot)
        raise KeyboardInterrupt

    unused: Any = SimpleNamespace(layout=layout)
    monkeypatch.setattr(module, "_start_monitor", lambda *_: Monitor())
    monkeypatch.setattr(module, "_start_all", start_all)
    monkeypatch.setattr("gpufleet_testbed.local.start.cgroups.all_hierarchies", lambda: (tree,))

    with pytest.raises(KeyboardInterrupt):
        module.start(unused, unused, lock)

    assert not cgroup.exists()
    assert not layout.root.exists()
    assert not lock.path.exists()
