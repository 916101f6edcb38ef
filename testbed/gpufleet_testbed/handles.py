"""Handles of a cluster and its nodes, the same for every provider."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import MappingProxyType, TracebackType
from typing import Self


class Node(ABC):
    """One node of a running cluster."""

    name: str
    """Name of the Node object."""
    driver_dir: Path
    """Folder of this machine that is /opt/gpufleet/driver inside the node."""
    kubelet_dir: Path
    """Folder of this machine that is /var/lib/kubelet inside the node, with the kubelet's sockets."""

    @abstractmethod
    def run(
        self, args: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        """Runs a command inside the node, as root.

        Raises:
            ClusterError: It failed and `check` is set; the message contains the command and its output.
            TimeoutError: It was still running after `timeout` seconds, and was killed.
        """

    @abstractmethod
    def command(self, args: Sequence[str]) -> list[str]:
        """Returns the command line that runs `args` inside the node."""

    @abstractmethod
    def stop_kubelet(self) -> None:
        """Stops the kubelet and waits for its end; containers keep running."""

    @abstractmethod
    def start_kubelet(self) -> None:
        """Starts the kubelet; returns once its health endpoint answers."""

    @abstractmethod
    def stop_containerd(self) -> None:
        """Stops containerd and waits for its end; containers keep running."""

    @abstractmethod
    def start_containerd(self) -> None:
        """Starts containerd; returns once it answers."""

    def restart_kubelet(self) -> None:
        self.stop_kubelet()
        self.start_kubelet()

    def restart_containerd(self) -> None:
        self.stop_containerd()
        self.start_containerd()

    @abstractmethod
    def freeze(self) -> None:
        """Freezes every process of the node, including pods, like a hung machine."""

    @abstractmethod
    def thaw(self) -> None:
        """Continues a frozen node."""

    @abstractmethod
    def kill(self) -> None:
        """Kills every process of the node, including pods, like a power failure."""

    @abstractmethod
    def boot(self) -> None:
        """Starts a killed node again; its disk is unchanged, its /run is empty."""

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Imports an OCI or Docker image archive into the node's container runtime."""


class Cluster(ABC):
    """A running cluster. As a context manager it stops the cluster on exit, unless it ran before."""

    kubeconfig: Path
    """The administrator's kubeconfig, with embedded certificates."""
    nodes: tuple[Node, ...]
    log_dir: Path
    """Contains one log file per component; see `collect_logs`."""
    environment: Mapping[str, str] = MappingProxyType({})
    """Variables with which later commands of the test bed and the demo find the cluster."""
    owned: bool
    """Whether the cluster stops with this handle's block or this process."""

    @abstractmethod
    def kubectl(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        """Runs kubectl as administrator; errors as for `Node.run`."""

    @abstractmethod
    def helm(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> CompletedProcess[str]:
        """Runs helm as administrator; errors as for `Node.run`."""

    @abstractmethod
    def program(self, name: str) -> Path:
        """Returns the path of one of the cluster's binaries, such as kubectl.

        Raises:
            KeyError: The cluster has no such binary.
        """

    @abstractmethod
    def stop_apiserver(self) -> None:
        """Stops kube-apiserver and waits for its end; etcd, the controllers and the nodes keep running."""

    @abstractmethod
    def start_apiserver(self) -> None:
        """Starts kube-apiserver; returns once it is ready."""

    def collect_logs(self) -> Path:
        """Updates `log_dir` and returns it."""
        return self.log_dir

    @abstractmethod
    def release(self) -> None:
        """Detaches the cluster from this process, so that it lives until `down`."""

    @abstractmethod
    def down(self) -> None:
        """Stops the cluster and removes everything that it created."""

    def node(self, name: str) -> Node:
        """Returns the node of this name.

        Raises:
            KeyError: The cluster has no such node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"node {name!r} not found: must be one of {', '.join(node.name for node in self.nodes)}")

    def load_image(self, archive: Path) -> None:
        """Imports an image archive on every node."""
        for node in self.nodes:
            node.load_image(archive)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the cluster if this handle owns it."""
        if self.owned:
            self.down()
