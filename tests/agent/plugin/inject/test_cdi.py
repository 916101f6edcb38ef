"""The CDI file: valid by the specification's rules, whole at every moment, gone at the end."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.plugin.inject.cdi import CdiFile, annotation, build_spec
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_api.names import CDI_KIND
from gpufleet_testing.hypothesis_profiles import examples

NODE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["path"],
    "properties": {
        "path": {"type": "string", "pattern": "^/"},
        "hostPath": {"type": "string", "pattern": "^/"},
        "permissions": {"type": "string", "pattern": "^[rwm]+$"},
    },
}
EDITS = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "properties": {
        "env": {"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}},
        "deviceNodes": {"type": "array", "minItems": 1, "items": NODE},
    },
}
SPECIFICATION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["cdiVersion", "kind", "devices"],
    "properties": {
        # hostPath of device nodes came with this version; a runtime rejects a file that says an earlier one.
        "cdiVersion": {"const": "0.5.0"},
        # Before 0.6.0, no dot in what follows the slash.
        "kind": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]$"},
        "devices": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "containerEdits"],
                "properties": {
                    "name": {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$"},
                    "containerEdits": EDITS,
                },
            },
        },
    },
}
"""What the specification says of the fields that we use; one that it doesn't know makes a runtime drop the file."""

DEVICES = tuple(AdvertisedDevice(f"GPU-{index}", index, healthy=True) for index in (1, 0))


def two_nodes(uuid: str) -> tuple[tuple[str, str], ...]:
    number = uuid.removeprefix("GPU-")
    return (f"/dev/nvidia{number}", f"/root/dev/nvidia{number}"), ("/dev/nvidiactl", "/dev/nvidiactl")


def no_nodes(_: str) -> tuple[tuple[str, str], ...]:
    return ()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., CdiFile]:
    return lambda nodes=two_nodes: CdiFile(tmp_path / "cdi", CDI_KIND, nodes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cdi" / "gpufleet.dev-gpu.json"


uuids = st.builds("{}-{}".format, st.sampled_from(["GPU", "MIG"]), st.uuids())
paths = st.text("abc019/_-", min_size=1, max_size=40).map("/{}".format)


@examples(25)
@given(st.dictionaries(uuids, st.lists(st.tuples(paths, paths), max_size=3), max_size=4))
def test_spec_of_any_devices_is_valid(found: dict[str, list[tuple[str, str]]]) -> None:
    devices = [AdvertisedDevice(uuid, index, healthy=True) for index, uuid in enumerate(found)]
    spec = build_spec(CDI_KIND, devices, lambda uuid: tuple(found[uuid]))
    assert [device["name"] for device in spec["devices"]] == [uuid for uuid, nodes in found.items() if nodes]
    if spec["devices"]:
        jsonschema.validate(json.loads(json.dumps(spec)), SPECIFICATION)


def test_spec_has_uuid_and_nodes_and_disables_nvidia_runtime(make: Callable[..., CdiFile], path: Path) -> None:
    make().write(DEVICES)
    first, second = json.loads(path.read_text())["devices"]
    assert first == {
        "name": "GPU-0",
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [
                {"path": "/dev/nvidia0", "hostPath": "/root/dev/nvidia0", "permissions": "rw"},
                {"path": "/dev/nvidiactl", "permissions": "rw"},
            ],
        },
    }
    assert second["name"] == "GPU-1"


def test_the_file_appears_whole_and_under_a_name_that_runtimes_read(
    make: Callable[..., CdiFile], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    seen: list[tuple[str, str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.extend((one.name, one.read_text()) for one in path.parent.iterdir())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    make().write(DEVICES)
    ((name, text),) = seen
    assert not name.endswith((".json", ".yaml"))
    assert text == path.read_text()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_file_is_written_on_change_only(make: Callable[..., CdiFile], path: Path) -> None:
    file = make()
    file.write(DEVICES)
    first = path.stat().st_ino
    file.write(DEVICES[::-1])
    assert path.stat().st_ino == first, "the same devices in another order"
    file.write(DEVICES[:1])
    assert [device["name"] for device in json.loads(path.read_text())["devices"]] == ["GPU-1"]
    path.unlink()
    file.write(DEVICES[:1])
    assert path.exists(), "the file was removed"


def test_devices_without_nodes_are_left_out_and_an_empty_file_is_removed(
    make: Callable[..., CdiFile], path: Path
) -> None:
    make(lambda uuid: two_nodes(uuid) if uuid == "GPU-1" else ()).write(DEVICES)
    assert [device["name"] for device in json.loads(path.read_text())["devices"]] == ["GPU-1"]
    make(no_nodes).write(DEVICES)
    assert not path.exists()


def test_foreign_content_is_replaced(make: Callable[..., CdiFile], path: Path) -> None:
    file = make()
    file.write(DEVICES)
    right = path.read_text()
    path.write_bytes(b"\xff\xfe\x00")
    file.write(DEVICES)
    assert path.read_text() == right


def test_no_devices_no_file_and_nothing_is_left_at_the_end(make: Callable[..., CdiFile], path: Path) -> None:
    file = make()
    file.write(DEVICES)
    jsonschema.validate(json.loads(path.read_text()), SPECIFICATION)
    file.write(())
    assert not path.exists()
    file.write(DEVICES)
    path.with_name(f"{path.name}.part").write_text("half")
    file.remove()
    assert list(path.parent.iterdir()) == []
    file.remove()


def test_annotation_keys_are_unique_and_short_enough() -> None:
    mig = "MIG-" + "0" * 36
    first, second = annotation(CDI_KIND, ("GPU-0", "GPU-1")), annotation(CDI_KIND, (mig,))
    assert first == {"cdi.k8s.io/gpufleet_GPU-0": "gpufleet.dev/gpu=GPU-0,gpufleet.dev/gpu=GPU-1"}
    (key,) = second
    assert len(key.partition("/")[2]) <= 63
    assert not first.keys() & second.keys()
