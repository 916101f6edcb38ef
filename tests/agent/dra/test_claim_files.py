import json
from pathlib import Path

from gpufleet_agent.dra.claim_files import ClaimFiles, ClaimMounts, build_claim_spec, cdi_id
from gpufleet_testing.agent.dra import prepared

CLAIM = prepared("a", "GPU-0", "GPU-1")


def nodes(uuid: str) -> tuple[tuple[str, str], ...]:
    number = uuid.removeprefix("GPU-")
    return (f"/dev/nvidia{number}", f"/run/driver/dev/nvidia{number}"), ("/dev/nvidiactl", "/dev/nvidiactl")


def test_spec_has_an_entry_per_device_with_nodes_and_the_claims_variables() -> None:
    spec = build_claim_spec(CLAIM, nodes)
    assert (spec["cdiVersion"], spec["kind"]) == ("0.5.0", "gpufleet.dev/claim")
    assert spec["devices"][1] == {
        "name": "claim-uid-a-1-GPU-1",
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=GPU-0,GPU-1"],
            "deviceNodes": [
                {"path": "/dev/nvidia1", "permissions": "rw", "hostPath": "/run/driver/dev/nvidia1"},
                {"path": "/dev/nvidiactl", "permissions": "rw"},
            ],
        },
    }
    assert cdi_id(CLAIM, 1) == "gpufleet.dev/claim=claim-uid-a-1-GPU-1"


def test_spec_without_device_nodes_has_variables_only() -> None:
    edits = build_claim_spec(CLAIM, lambda _: ())["devices"][0]["containerEdits"]
    assert edits == {"env": ["NVIDIA_VISIBLE_DEVICES=GPU-0,GPU-1"]}


def test_mounts_are_read_only_and_those_of_the_driver_come_once() -> None:
    mounts = ClaimMounts(((Path("/home/kubernetes/bin/nvidia"), Path("/usr/local/nvidia")),), lists_devices=True)
    spec = build_claim_spec(CLAIM, nodes, mounts)
    read_only = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    assert spec["containerEdits"]["mounts"] == [
        {"hostPath": "/home/kubernetes/bin/nvidia", "containerPath": "/usr/local/nvidia", "options": read_only}
    ]
    listed = [each["containerEdits"]["mounts"] for each in spec["devices"]]
    assert listed == [
        [{"hostPath": "/dev/null", "containerPath": f"/var/run/nvidia-container-devices/{uuid}", "options": read_only}]
        for uuid in ("GPU-0", "GPU-1")
    ]


def test_files_are_written_read_and_removed(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path / "cdi")
    files.write(CLAIM, nodes)
    assert files.load() == {CLAIM.uid: CLAIM}
    assert [path.suffix for path in sorted((tmp_path / "cdi").iterdir())] == [".checkpoint", ".json"]
    assert json.loads((tmp_path / "cdi" / f"gpu.gpufleet.dev-claim-{CLAIM.uid}.json").read_text()) == build_claim_spec(
        CLAIM, nodes
    )
    files.remove(CLAIM.uid)
    files.remove(CLAIM.uid)
    assert list((tmp_path / "cdi").iterdir()) == []


def test_files_that_are_right_are_not_written_again(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    files.write(CLAIM, nodes)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    files.write(CLAIM, nodes)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_damaged_checkpoint_is_removed_and_others_are_kept(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    files.write(CLAIM, nodes)
    damaged = tmp_path / "gpu.gpufleet.dev-claim-x.checkpoint"
    damaged.write_text("{")
    assert files.load() == {CLAIM.uid: CLAIM}
    assert not damaged.exists()


def test_rest_of_an_interrupted_write_is_removed_with_the_claim(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    files.write(CLAIM, nodes)
    for path in tuple(tmp_path.iterdir()):
        path.with_name(f"{path.name}.part").write_text("half")
    files.remove(CLAIM.uid)
    assert list(tmp_path.iterdir()) == []
