import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from gpufleet_testbed.images.oci import ImageConfig, Layer, image_digest, load_layer, make_layer, write_archive

CONFIG = ImageConfig(command=("/bin/sh",), user="65532:65532", env={"PATH": "/bin"})


def tree(root: Path, reverse: bool = False) -> Path:
    names = ["a/deep/file", "b", "z/other"]
    for name in reversed(names) if reverse else names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "link").symlink_to("b")
    (root / "b").chmod(0o755)
    return root


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    return make_layer(tree(tmp_path / "root"), tmp_path / "layer.tar")


def test_layers_are_reproducible_for_all_times_and_orders(tmp_path: Path, layer: Layer) -> None:
    other = tree(tmp_path / "other", reverse=True)
    os.utime(other / "b", (1, 1))
    again = make_layer(other, tmp_path / "again.tar")
    assert again.digest == layer.digest
    assert again.path.read_bytes() == layer.path.read_bytes()


def test_a_changed_mode_changes_the_layer(tmp_path: Path, layer: Layer) -> None:
    other = tree(tmp_path / "other")
    (other / "b").chmod(0o644)
    assert make_layer(other, tmp_path / "again.tar").digest != layer.digest


def test_layer_belongs_to_root_and_keeps_modes_and_links(layer: Layer) -> None:
    with tarfile.open(layer.path) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
    assert members["b"].mode == 0o755
    assert members["link"].linkname == "b"


def test_a_layer_is_found_again_with_its_digest(tmp_path: Path, layer: Layer) -> None:
    assert load_layer(layer.path) == layer
    assert load_layer(tmp_path / "none.tar") is None


def test_archive_holds_together_by_digests(tmp_path: Path, layer: Layer) -> None:
    output = tmp_path / "image.tar"
    write_archive(output, "localhost/x:1", [layer], CONFIG)
    with tarfile.open(output) as archive:
        content = {}
        for member in archive.getmembers():
            stream = archive.extractfile(member)
            assert stream is not None
            content[member.name] = stream.read()
    (entry,) = json.loads(content["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/x:1"
    assert entry["digest"] == image_digest("localhost/x:1", [layer], CONFIG)
    manifest = json.loads(content[f"blobs/{entry['digest'].replace(':', '/')}"])
    for descriptor in (manifest["config"], *manifest["layers"]):
        blob = content[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == descriptor["digest"]
        assert len(blob) == descriptor["size"]
    config = json.loads(content[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    assert config["rootfs"]["diff_ids"] == [layer.digest]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Env"] == ["PATH=/bin"]


def test_archive_is_the_same_each_time(tmp_path: Path, layer: Layer) -> None:
    for name in ("one.tar", "two.tar"):
        write_archive(tmp_path / name, "localhost/x:1", [layer], CONFIG)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_left_out_layers_stay_in_the_manifest(tmp_path: Path, layer: Layer) -> None:
    upper = make_layer(tree(tmp_path / "upper"), tmp_path / "upper.tar")
    (tmp_path / "upper" / "more").write_text("more")
    upper = make_layer(tmp_path / "upper", tmp_path / "upper.tar")
    write_archive(tmp_path / "image.tar", "localhost/x:1", [layer, upper], CONFIG, left_out=[layer])
    with tarfile.open(tmp_path / "image.tar") as archive:
        names = archive.getnames()
    assert f"blobs/{upper.digest.replace(':', '/')}" in names
    assert f"blobs/{layer.digest.replace(':', '/')}" not in names
