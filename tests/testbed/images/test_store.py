import os
from pathlib import Path

import pytest

from gpufleet_testbed.images import store as seed


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds" / "one"
    layer = folder / seed.SNAPSHOTS / "1" / "fs"
    layer.mkdir(parents=True)
    (layer / "large").write_text("large")
    (folder / "containerd" / "meta.db").write_text("database")
    (folder / "containerd" / "blob").write_text("blob")
    return folder


def test_a_node_gets_own_databases_linked_blobs_and_mount_points_for_layers(store: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    (node / "var-lib").mkdir(parents=True)
    seed.copy_store(store, node)
    planted = node / "var-lib" / "containerd"
    assert (planted / "meta.db").stat().st_ino != (store / "containerd" / "meta.db").stat().st_ino
    assert (planted / "meta.db").read_text() == "database"
    assert (planted / "blob").stat().st_ino == (store / "containerd" / "blob").stat().st_ino
    assert list((node / "var-lib" / seed.SNAPSHOTS / "1").iterdir()) == []
    assert (node / "seed").resolve() == store


def test_old_stores_are_removed_unless_a_cluster_uses_them(store: Path, tmp_path: Path) -> None:
    for age, name in enumerate(("used", "old", "newer"), start=1):
        folder = store.parent / name
        folder.mkdir()
        os.utime(folder, (age, age))
    link = tmp_path / "cluster-x" / "nodes" / "node-1" / "seed"
    link.parent.mkdir(parents=True)
    link.symlink_to(store.parent / "used")
    seed.prune(store, tmp_path)
    assert sorted(path.name for path in store.parent.iterdir()) == ["newer", "one", "used"]
