"""The handles that tests and the demo hold: a cluster and its nodes, the same for every provider."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Self


class Node(ABC):
    """One node of a running cluster."""

    name: str
    """Name of the Node object."""
    driver_dir: Path
    """Host folder that the node sees as /opt/gpufleet/driver."""
    kubelet_dir: Path
    """The node's /var/lib/kubelet as this machine sees it: the kubelet's sockets can be reached from outside."""

    @abstractmethod
    def run(
        self, args: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        """Run a command inside the node, as root.

        Raises:
            ClusterError: it failed and `check` is set; the message holds the command and its stderr.
            TimeoutError: it was still running after `timeout` seconds; it has been killed.
        """

    @abstractmethod
    def command(self, args: Sequence[str]) -> list[str]:
        """The command line that runs `args` inside the node, for callers that want to run it themselves."""

    @abstractmethod
    def stop_kubelet(self) -> None:
        """Stop the kubelet and wait for its end; containers go on."""

    @abstractmethod
    def start_kubelet(self) -> None:
        """Start the kubelet; returns once its health endpoint answers."""

    @abstractmethod
    def stop_containerd(self) -> None:
        """Stop containerd and wait for its end; containers go on."""

    @abstractmethod
    def start_containerd(self) -> None:
        """Start containerd; returns once it answers."""

    def restart_kubelet(self) -> None:
        """Stop the kubelet and start it again."""
        self.stop_kubelet()
        self.start_kubelet()

    def restart_containerd(self) -> None:
        """Stop containerd and start it again."""
        self.stop_containerd()
        self.start_containerd()

    @abstractmethod
    def freeze(self) -> None:
        """Freeze every process of the node, pods included: it looks like a hung machine."""

    @abstractmethod
    def thaw(self) -> None:
        """Let a frozen node go on."""

    @abstractmethod
    def kill(self) -> None:
        """End every process of the node at once, pods included: it looks like a power cut."""

    @abstractmethod
    def boot(self) -> None:
        """Start a killed node again; its disk is as it was, its /run is empty."""

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Import an OCI or Docker image archive into the node's container runtime."""


class Cluster(ABC):
    """A running cluster. As a context manager it ends the cluster on exit, unless it was running before."""

    kubeconfig: Path
    """Administrator's kubeconfig, certificates inside."""
    nodes: tuple[Node, ...]
    log_dir: Path
    """One log file for each component; see `collect_logs`."""
    owned: bool
    """True when this handle started the cluster and its exit, or the death of this process, ends it."""

    @abstractmethod
    def kubectl(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        """Run kubectl as administrator; errors as for `Node.run`."""

    @abstractmethod
    def helm(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> CompletedProcess[str]:
        """Run helm as administrator; errors as for `Node.run`."""

    @abstractmethod
    def program(self, name: str) -> Path:
        """Path of a program that came with the cluster, such as kubectl. KeyError: it is none of them."""

    def collect_logs(self) -> Path:
        """Make sure that `log_dir` holds the logs up to now, and return it."""
        return self.log_dir

    @abstractmethod
    def release(self) -> None:
        """Let the cluster live on until `down`, whatever becomes of this process. Nothing to do when it does anyway."""

    @abstractmethod
    def down(self) -> None:
        """End the cluster and remove what it made."""

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"no node {name!r}; there are {', '.join(node.name for node in self.nodes)}")

    def load_image(self, archive: Path) -> None:
        """Import an image archive on every node."""
        for node in self.nodes:
            node.load_image(archive)

    def __enter__(self) -> Self:
        """The cluster itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the cluster if this handle owns it."""
        if self.owned:
            self.down()
