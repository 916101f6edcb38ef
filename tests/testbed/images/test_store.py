import os
from pathlib import Path

import pytest

from gpufleet_testbed.images import store as image_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds" / "one"
    layer = folder / image_store.SNAPSHOTS / "1" / "fs"
    layer.mkdir(parents=True)
    (layer / "large").write_text("large")
    (folder / "containerd" / "meta.db").write_text("database")
    (folder / "containerd" / "blob").write_text("blob")
    return folder


def test_node_gets_databases_linked_blobs_and_mount_points(store: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    (node / "var-lib").mkdir(parents=True)
    image_store.copy_store(store, node)
    planted = node / "var-lib" / "containerd"
    assert (planted / "meta.db").stat().st_ino != (store / "containerd" / "meta.db").stat().st_ino
    assert (planted / "meta.db").read_text() == "database"
    assert (planted / "blob").stat().st_ino == (store / "containerd" / "blob").stat().st_ino
    assert list((node / "var-lib" / image_store.SNAPSHOTS / "1").iterdir()) == []
    assert (node / "image-store").resolve() == store


def test_old_stores_are_removed_unless_used(store: Path, tmp_path: Path) -> None:
    for age, name in enumerate(("used", "old", "newer"), start=1):
        folder = store.parent / name
        folder.mkdir()
        os.utime(folder, (age, age))
    link = tmp_path / "cluster-x" / "nodes" / "node-1" / "image-store"
    link.parent.mkdir(parents=True)
    link.symlink_to(store.parent / "used")
    image_store.prune(store, tmp_path)
    assert sorted(path.name for path in store.parent.iterdir()) == ["newer", "one", "used"]


def test_stores_are_removed_by_processes_that_start_together(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in range(4):
        folder = store.parent / f"old-{age}"
        folder.mkdir()
        os.utime(folder, (age, age))
    rename = Path.rename

    def after_another_process(path: Path, target: Path) -> Path:
        if path.name == "old-1":
            path.rmdir()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another_process)
    image_store.prune(store, tmp_path)
    assert sorted(path.name for path in store.parent.iterdir()) == ["old-3", "one"]
