"""Files and addresses of a local cluster."""

import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.config import DEFAULT_NAME

DRIVER_MOUNT = Path("/opt/gpufleet/driver")
API_PORT = 6443
KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 10248
SERVICE_NETWORK = "10.96.0.0/16"
CLUSTER_DOMAIN = "cluster.local"
CGROUP_PREFIX = "gpufleet-"


def link_name(cluster: str) -> str:
    """Returns the name of a cluster's interface on this machine."""
    return "gf0" if cluster == DEFAULT_NAME else f"gf-{cluster}"


def cgroup_name(root: Path) -> str:
    """Returns the cgroup of the cluster in this folder; it depends on the folder and not on the name."""
    return f"{CGROUP_PREFIX}{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def lock_file(root: Path) -> Path:
    """Returns the lock file of the cluster in this folder; it exists as long as the cluster."""
    return root.with_suffix(".lock")


@dataclass(frozen=True)
class NodeLayout:
    """Folder, addresses and files of a node."""

    name: str
    folder: Path
    address: str
    pod_network: str
    bridge: str
    cgroup: str
    """Contains all processes of the node; the kubelet's cgroup root."""

    @property
    def system_cgroup(self) -> str:
        """The cgroup of containerd and kubelet; a leaf, because cgroup v2 allows processes only in leaves."""
        return f"{self.cgroup}/system"

    @property
    def control(self) -> Path:
        """Socket of the node's process 1."""
        return self.folder / "control.sock"

    @property
    def driver(self) -> Path:
        """Is /opt/gpufleet/driver inside the node."""
        return self.folder / "driver"

    @property
    def kubelet_config(self) -> Path:
        return self.folder / "kubelet.json"

    @property
    def containerd_config(self) -> Path:
        return self.folder / "containerd.toml"

    @property
    def cni(self) -> Path:
        """Folder of the CNI configuration."""
        return self.folder / "cni"


@dataclass(frozen=True)
class Layout:
    """Files and addresses of a cluster, with all files below `root`."""

    root: Path
    name: str
    network: ipaddress.IPv4Network
    nodes: int

    @property
    def link(self) -> str:
        """The interface between this machine and the cluster's network namespace, of the same name on both sides."""
        return link_name(self.name)

    @property
    def control_plane_cgroup(self) -> str:
        """The cgroup of the control plane."""
        return f"{cgroup_name(self.root)}/control-plane"

    @property
    def host_address(self) -> str:
        """Address of this machine's end of the link."""
        return str(self.network[1])

    @property
    def api_address(self) -> str:
        """Address of the cluster's end of the link: the apiserver, also for pods."""
        return str(self.network[2])

    @property
    def server(self) -> str:
        """URL of the apiserver."""
        return f"https://{self.api_address}:{API_PORT}"

    @property
    def control(self) -> Path:
        """Socket of the cluster's process 1."""
        return self.root / "control.sock"

    @property
    def state(self) -> Path:
        """Facts of the running cluster for later commands."""
        return self.root / "state.json"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def corefile(self) -> Path:
        """The configuration of CoreDNS."""
        return self.root / "Corefile"

    @property
    def logs(self) -> Path:
        """Folder with one log per component."""
        return self.root / "log"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.component_kubeconfig("admin")

    def component_kubeconfig(self, name: str) -> Path:
        """Returns the kubeconfig of a component or node."""
        return self.root / "kubeconfig" / name

    def node(self, index: int) -> NodeLayout:
        """Returns the layout of a node by its index, from 1."""
        name = f"node-{index}"
        return NodeLayout(
            name=name,
            folder=self.root / "nodes" / name,
            address=str(self.network[10 + index]),
            pod_network=str(list(self.network.subnets(new_prefix=24))[index]),
            bridge=f"gfbr{index}",
            cgroup=f"{cgroup_name(self.root)}/{name}",
        )

    @property
    def node_layouts(self) -> list[NodeLayout]:
        return [self.node(index) for index in range(1, self.nodes + 1)]
