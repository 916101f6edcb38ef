"""Starts and watches the units of a local cluster through its supervisors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.config import ClusterConfig
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import run
from gpufleet_testbed.local.api import ApiClient, healthy
from gpufleet_testbed.local.layout import KUBELET_HEALTH_PORT, Layout, NodeLayout
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.processes.supervisor_client import SupervisorClient
from gpufleet_testbed.local.setup import command_lines
from gpufleet_testbed.local.setup.config_files import CONTAINERD_SOCKET
from gpufleet_testbed.local.teardown import read_processes
from gpufleet_testbed.waiting import wait_until

CONTROL_PLANE = ("etcd", "apiserver")
"""What must run before anything else can start."""
_START_SECONDS = 60.0
_APISERVER_SECONDS = 90.0

_HEAP_GROWTH_PERCENT = 400
"""At Go's default of 100 kube-apiserver needs 15 % more processor time."""


@dataclass(frozen=True)
class Units:
    """The units of one cluster."""

    layout: Layout
    config: ClusterConfig
    assets: Assets

    @property
    def control(self) -> SupervisorClient:
        """Client of the cluster's supervisor."""
        return SupervisorClient(self.layout.control)

    @property
    def env(self) -> Mapping[str, str]:
        """Variables of every component. All use one iptables lock file, because nodes do not share /run."""
        return {
            "PATH": self.assets.search_path,
            "XTABLES_LOCKFILE": str(self.layout.root / "xtables.lock"),
            "GOGC": str(_HEAP_GROWTH_PERCENT),
            "GOMEMLIMIT": f"{self.config.component_memory_mib}MiB",
        }

    def log(self, unit: str) -> Path:
        """Returns the log of a unit."""
        return self.layout.logs / f"{unit}.log"

    def start(self, unit: str, argv: list[str]) -> None:
        """Starts a unit outside of the nodes."""
        self.control.start(unit, argv, self.log(unit), self.env)

    def require(self, *units: str) -> None:
        """Raises ClusterError if one of these units has ended."""
        for unit in units:
            self.control.require(unit, self.log(unit))

    def await_apiserver(self) -> None:
        """Waits until the apiserver is ready."""
        api = ApiClient(self.layout)
        wait_until(
            lambda: api.ready,
            "the apiserver is ready",
            lambda: self.require(*CONTROL_PLANE),
            timeout=_APISERVER_SECONDS,
        )

    def boot(self, node: NodeLayout) -> None:
        """Starts a node's namespaces and containerd in them; returns once containerd listens."""
        node.control.unlink(missing_ok=True)
        joined = cgroups.create(cgroups.hierarchies(), node.system_cgroup)
        self.start(node.name, command_lines.node_namespace(node, joined))
        wait_until(node.control.is_socket, f"{node.name} runs", lambda: self.require(node.name), timeout=_START_SECONDS)
        self.start_in(node, "containerd", command_lines.containerd(node, self.assets))
        self.await_containerd(node)

    def start_in(self, node: NodeLayout, unit: str, argv: list[str]) -> None:
        """Starts a unit inside a node."""
        SupervisorClient(node.control).start(unit, argv, self.log(f"{node.name}-{unit}"), self.env)

    def await_containerd(self, node: NodeLayout) -> None:
        """Waits until the node's containerd listens."""
        probe = f"until [ -S {CONTAINERD_SOCKET} ]; do sleep 0.02; done"
        try:
            self.run_in(node, ["sh", "-c", probe], timeout=_START_SECONDS)
        except TimeoutError as error:
            SupervisorClient(node.control).require("containerd", self.log(f"{node.name}-containerd"))
            raise ClusterError(f"containerd of {node.name} does not listen") from error

    def start_kubelet(self, node: NodeLayout) -> None:
        """Starts a node's kubelet, without waiting."""
        self.start_in(node, "kubelet", command_lines.kubelet(self.layout, node, self.assets))

    def await_kubelet(self, node: NodeLayout) -> None:
        """Waits until the kubelet is healthy."""
        control, log = SupervisorClient(node.control), self.log(f"{node.name}-kubelet")
        wait_until(
            lambda: healthy(node.address, KUBELET_HEALTH_PORT),
            f"kubelet of {node.name} is healthy",
            lambda: control.require("kubelet", log),
            timeout=_START_SECONDS,
        )

    def enter(self, node: NodeLayout) -> list[str]:
        """Returns the prefix of a command line that runs inside a node."""
        processes = read_processes(self.layout.root)
        if processes is None:
            raise ClusterError(f"no cluster in {self.layout.root}")
        inner = self.control.units()[node.name].pid
        return [
            *command_lines.enter(processes.namespace.pid, network=True),
            *command_lines.enter(inner, network=False),
        ]

    def run_in(
        self, node: NodeLayout, args: list[str], *, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        """Runs a command inside a node; errors as for `Node.run`."""
        return run([*self.enter(node), *args], check=check, stdin=stdin, timeout=timeout, env=self.env)

    def load_image(self, node: NodeLayout, archive: Path) -> None:
        """Imports an image archive on a node."""
        importing = [self.assets["ctr"], "--namespace=k8s.io", "images", "import", "--local", str(archive)]
        self.run_in(node, importing, timeout=300)
