"""Command lines and configuration of kind and docker, from plain values."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from gpufleet_testbed.config import ClusterConfig

DRIVER_MOUNT = "/opt/gpufleet/driver"
AUDIT_MOUNT = "/etc/kubernetes/gpufleet"
AUDIT_LOG = "/var/log/kubernetes/audit.log"


def worker_names(name: str, count: int) -> list[str]:
    """Returns kind's names of the worker nodes."""
    return [f"{name}-worker{'' if index == 1 else index}" for index in range(1, count + 1)]


def control_plane_name(name: str) -> str:
    """Returns kind's name of the control plane's node."""
    return f"{name}-control-plane"


def driver_dir(root: Path, node: str) -> Path:
    """Returns the folder that is /opt/gpufleet/driver inside the node."""
    return root / "nodes" / node / "driver"


def kubelet_dir(root: Path, node: str) -> Path:
    """Returns the folder that is /var/lib/kubelet inside the node."""
    return root / "nodes" / node / "kubelet"


def cluster_config(config: ClusterConfig, root: Path) -> str:
    """Builds the configuration of `kind create cluster`."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "nodeStatusUpdateFrequency": f"{config.node_status_seconds}s",
        "failCgroupV1": False,  # by default a kubelet of 1.35 or later does not start on cgroup v1
    }
    control_plane: dict[str, object] = {"role": "control-plane"}
    if config.audit_policy:
        control_plane |= _audit(root)
    workers = [
        {
            "role": "worker",
            "extraMounts": [
                {"hostPath": str(driver_dir(root, name)), "containerPath": DRIVER_MOUNT},
                {"hostPath": str(kubelet_dir(root, name)), "containerPath": "/var/lib/kubelet"},
            ],
        }
        for name in worker_names(config.name, config.nodes)
    ]
    content = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kubeadmConfigPatches": [yaml.safe_dump(kubelet, sort_keys=False)],
        "nodes": [control_plane, *workers],
    }
    return yaml.safe_dump(content, sort_keys=False)


def create(name: str, root: Path, kubeconfig: Path, image: str) -> list[str]:
    """Starts the cluster and waits until it is ready."""
    return [
        "kind", "create", "cluster", f"--name={name}", f"--image={image}",
        f"--config={root / 'kind.yaml'}", f"--kubeconfig={kubeconfig}", "--wait=300s",
    ]  # fmt: skip


def delete(name: str, kubeconfig: Path) -> list[str]:
    """Removes the cluster; succeeds when it does not exist."""
    return ["kind", "delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}"]


def list_clusters() -> list[str]:
    """Prints the names of all kind clusters."""
    return ["kind", "get", "clusters"]


def load_archive(name: str, archive: Path, nodes: Sequence[str]) -> list[str]:
    """Loads an image archive on some nodes."""
    return ["kind", "load", "image-archive", str(archive), f"--name={name}", f"--nodes={','.join(nodes)}"]


def build_image(context: Path, *names: str, target: str = "", **arguments: str) -> list[str]:
    """Builds a target of the Dockerfile of a folder, by default the last one, with some build arguments."""
    options = [f"--target={target}"] if target else []
    options += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    tags = [word for name in names for word in ("--tag", name)]
    # Mirrors are reached as from this machine, also when the engine's own bridge has no way out.
    return ["docker", "build", "--quiet", "--network=host", *options, *tags, str(context)]


def save_image(archive: Path, *names: str) -> list[str]:
    """Writes images of the Docker engine to a file."""
    return ["docker", "save", f"--output={archive}", *names]


def execute(node: str, args: Sequence[str], *, stdin: bool) -> list[str]:
    """Runs a command inside a node."""
    return ["docker", "exec", *(["--interactive"] if stdin else []), node, *args]


def systemctl(node: str, action: str, unit: str) -> list[str]:
    """Starts or stops a service of a node."""
    return execute(node, ["systemctl", action, unit], stdin=False)


def move_static_pod(node: str, name: str, *, starts: bool) -> list[str]:
    """Moves the manifest of a static pod into or out of the folder that the kubelet of a node reads."""
    manifest = f"{name}.yaml"
    folders = [f"/etc/kubernetes/{manifest}", f"/etc/kubernetes/manifests/{manifest}"]
    return execute(node, ["mv", *(folders if starts else reversed(folders))], stdin=False)


def running_containers(node: str, name: str) -> list[str]:
    """Prints the IDs of the containers of this name that run on a node."""
    return execute(node, ["crictl", "ps", "--quiet", f"--name={name}"], stdin=False)


def container(action: str, node: str) -> list[str]:
    """Pauses, unpauses, kills or starts a whole node."""
    return ["docker", action, node]


def export_logs(name: str, folder: Path) -> list[str]:
    """Writes the logs of every node below a folder."""
    return ["kind", "export", "logs", str(folder), f"--name={name}"]


def _audit(root: Path) -> dict[str, object]:
    log_folder = str(Path(AUDIT_LOG).parent)
    volumes = [
        {"name": "audit-policy", "hostPath": AUDIT_MOUNT, "mountPath": AUDIT_MOUNT, "readOnly": True},
        {"name": "audit-log", "hostPath": log_folder, "mountPath": log_folder, "pathType": "DirectoryOrCreate"},
    ]
    arguments = {"audit-policy-file": f"{AUDIT_MOUNT}/audit-policy.yaml", "audit-log-path": AUDIT_LOG}
    # JSON 6902, because a merge patch would replace the arguments that kind sets.
    patch: list[dict[str, object]] = [
        {"op": "add", "path": "/apiServer/extraArgs/-", "value": {"name": name, "value": value}}
        for name, value in arguments.items()
    ]
    patch.append({"op": "add", "path": "/apiServer/extraVolumes", "value": volumes})
    target = {"group": "kubeadm.k8s.io", "version": "v1beta4", "kind": "ClusterConfiguration"}
    return {
        "kubeadmConfigPatchesJSON6902": [{**target, "patch": json.dumps(patch)}],
        "extraMounts": [{"hostPath": str(root / "audit"), "containerPath": AUDIT_MOUNT}],
    }
