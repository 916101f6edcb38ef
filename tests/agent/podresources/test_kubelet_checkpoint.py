import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.podresources.kubelet_checkpoint import FILE, KubeletCheckpoint, parse_checkpoint
from gpufleet_api.names import RESOURCE


def entry(uid: str, *ids: str, container: str = "main", numa_node: str = "-1") -> dict[str, Any]:
    devices = {numa_node: list(ids)}
    return {"PodUID": uid, "ContainerName": container, "ResourceName": RESOURCE, "DeviceIDs": devices, "AllocResp": ""}


def checkpoint(*entries: object) -> str:
    """The kubelet's file, as version 1.36 writes it."""
    return json.dumps({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {RESOURCE: ["a"]}}, "Checksum": 7})


def test_uid_is_found_by_container_and_devices() -> None:
    text = checkpoint(entry("uid-1", "GPU-0", "GPU-1"), entry("uid-2", "GPU-2", container="side", numa_node="0"))
    assert parse_checkpoint(text) == {
        ("main", RESOURCE, frozenset({"GPU-0", "GPU-1"})): "uid-1",
        ("side", RESOURCE, frozenset({"GPU-2"})): "uid-2",
    }


def test_devices_of_two_pods_have_no_uid() -> None:
    assert parse_checkpoint(checkpoint(entry("uid-1", "GPU-0"), entry("uid-2", "GPU-0"))) == {}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"Data": {"PodDeviceEntries": null}}',
        checkpoint(7, {"PodUID": 5}, {"PodUID": "uid-1", "DeviceIDs": ["GPU-0"]}),
    ],
)
def test_file_of_another_form_has_no_uids(text: str) -> None:
    assert parse_checkpoint(text) == {}


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    reader = KubeletCheckpoint(tmp_path)
    assert reader.pod_uids() == {}
    (tmp_path / FILE).write_text(checkpoint(entry("uid-1", "GPU-0")))
    assert set(reader.pod_uids().values()) == {"uid-1"}
    (tmp_path / "new").write_text(checkpoint(entry("uid-2", "GPU-0")))
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(tmp_path / FILE)
    assert set(reader.pod_uids().values()) == {"uid-2"}
    (tmp_path / FILE).write_text("{")
    assert reader.pod_uids() == {}


def test_content_is_known_without_a_read_until_the_file_changes(tmp_path: Path) -> None:
    reader = KubeletCheckpoint(tmp_path)
    assert reader.unchanged() == {}, "there is no file"
    (tmp_path / FILE).write_text(checkpoint(entry("uid-1", "GPU-0")))
    assert reader.unchanged() is None
    reader.pod_uids()
    assert reader.unchanged() == reader.pod_uids() != {}
    os.utime(tmp_path / FILE, ns=(1, 1))
    assert reader.unchanged() is None
    (tmp_path / FILE).unlink()
    assert reader.unchanged() is None
    assert reader.pod_uids() == {}
    assert reader.unchanged() == {}


def test_file_that_cannot_be_read_is_never_unchanged(tmp_path: Path) -> None:
    reader = KubeletCheckpoint(tmp_path)
    (tmp_path / FILE).write_text("{")
    for _ in range(2):
        assert reader.pod_uids() == {}
        assert reader.unchanged() is None
    reader = KubeletCheckpoint(tmp_path / FILE)  # not a directory
    reader.pod_uids()
    assert reader.unchanged() is None
