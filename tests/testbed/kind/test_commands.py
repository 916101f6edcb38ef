import json
from pathlib import Path

import yaml

from gpufleet_testbed.config import ClusterConfig
from gpufleet_testbed.kind import commands
from gpufleet_testbed.versions import KIND_NODE_IMAGE

ROOT = Path("/cache/kind")


def test_workers_are_named_as_kind_names_them() -> None:
    assert commands.worker_names("gpufleet", 3) == ["gpufleet-worker", "gpufleet-worker2", "gpufleet-worker3"]


def test_create_pins_the_image_and_waits() -> None:
    command = commands.create("gpufleet", ROOT, Path("/kubeconfig"), KIND_NODE_IMAGE)
    assert command[:3] == ["kind", "create", "cluster"]
    assert set(command[3:]) == {
        "--name=gpufleet",
        f"--image={KIND_NODE_IMAGE}",
        "--config=/cache/kind/kind.yaml",
        "--kubeconfig=/kubeconfig",
        "--wait=300s",
    }


def test_worker_mounts_driver_and_kubelet_folders() -> None:
    content = yaml.safe_load(commands.cluster_config(ClusterConfig(nodes=2, node_status_seconds=5), ROOT))
    control_plane, first, second = content["nodes"]
    assert control_plane == {"role": "control-plane"}
    assert first["extraMounts"] == [
        {"hostPath": "/cache/kind/nodes/gpufleet-worker/driver", "containerPath": "/opt/gpufleet/driver"},
        {"hostPath": "/cache/kind/nodes/gpufleet-worker/kubelet", "containerPath": "/var/lib/kubelet"},
    ]
    assert second["extraMounts"][0]["hostPath"].endswith("gpufleet-worker2/driver")
    (patch,) = content["kubeadmConfigPatches"]
    kubelet = yaml.safe_load(patch)
    assert kubelet["nodeStatusUpdateFrequency"] == "5s"
    assert kubelet["failCgroupV1"] is False


def test_audit_policy_is_added_to_kinds_arguments() -> None:
    content = yaml.safe_load(commands.cluster_config(ClusterConfig(audit_policy="rules: []"), ROOT))
    control_plane = content["nodes"][0]
    (patch,) = control_plane["kubeadmConfigPatchesJSON6902"]
    operations = json.loads(patch["patch"])
    assert [operation["path"] for operation in operations] == [
        "/apiServer/extraArgs/-",
        "/apiServer/extraArgs/-",
        "/apiServer/extraVolumes",
    ]
    assert control_plane["extraMounts"] == [
        {"hostPath": "/cache/kind/audit", "containerPath": "/etc/kubernetes/gpufleet"}
    ]


def test_commands_inside_nodes() -> None:
    assert commands.execute("n", ["ls", "/"], stdin=False) == ["docker", "exec", "n", "ls", "/"]
    assert commands.execute("n", ["cat"], stdin=True) == ["docker", "exec", "--interactive", "n", "cat"]
    assert commands.systemctl("n", "stop", "kubelet") == ["docker", "exec", "n", "systemctl", "stop", "kubelet"]
    assert commands.container("pause", "n") == ["docker", "pause", "n"]


def test_images_and_removal() -> None:
    assert commands.load_archive("c", Path("/x.tar"), ["a", "b"]) == [
        "kind",
        "load",
        "image-archive",
        "/x.tar",
        "--name=c",
        "--nodes=a,b",
    ]
    assert commands.build_image(Path("/src"), "localhost/x:1") == [
        "docker",
        "build",
        "--quiet",
        "--network=host",
        "--tag",
        "localhost/x:1",
        "/src",
    ]
    assert commands.delete("c", Path("/k")) == ["kind", "delete", "cluster", "--name=c", "--kubeconfig=/k"]


def test_static_pod_is_moved_out_and_back() -> None:
    out = commands.move_static_pod("n", "kube-apiserver", starts=False)
    back = commands.move_static_pod("n", "kube-apiserver", starts=True)
    assert out[:4] == back[:4] == ["docker", "exec", "n", "mv"]
    assert out[4:] == ["/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-apiserver.yaml"]
    assert back[4:] == out[:3:-1]
