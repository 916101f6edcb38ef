"""Handles of a local cluster and its nodes."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.handles import Cluster, Node
from gpufleet_testbed.host.command import run
from gpufleet_testbed.local.layout import NodeLayout
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.processes.supervisor_client import SupervisorClient
from gpufleet_testbed.local.start import Lifeline
from gpufleet_testbed.local.state import State
from gpufleet_testbed.local.units import Units


class LocalNode(Node):
    """A node whose processes run in namespaces of this machine."""

    def __init__(self, units: Units, layout: NodeLayout) -> None:
        self._units = units
        self._layout = layout
        self.name = layout.name
        self.driver_dir = layout.driver
        self.kubelet_dir = layout.folder / "var-lib" / "kubelet"

    @property
    def address(self) -> str:
        """Its IPv4 address, reachable from this machine."""
        return self._layout.address

    def command(self, args: Sequence[str]) -> list[str]:
        settings = [f"{name}={value}" for name, value in self._units.env.items()]
        return [*self._units.enter(self._layout), "env", *settings, *args]

    def run(
        self, args: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        return self._units.run_in(self._layout, list(args), check=check, stdin=stdin, timeout=timeout)

    def stop_kubelet(self) -> None:
        self._control.stop("kubelet")

    def start_kubelet(self) -> None:
        self._control.restart("kubelet")
        self._units.await_kubelet(self._layout)

    def stop_containerd(self) -> None:
        self._control.stop("containerd")

    def start_containerd(self) -> None:
        self._control.restart("containerd")
        self._units.await_containerd(self._layout)

    def freeze(self) -> None:
        cgroups.freeze(cgroups.hierarchies(), self._layout.cgroup, frozen=True)

    def thaw(self) -> None:
        cgroups.freeze(cgroups.hierarchies(), self._layout.cgroup, frozen=False)

    def kill(self) -> None:
        self.thaw()  # frozen processes of cgroup v1 do not die
        self._units.control.stop(self.name, signal.SIGKILL)

    def boot(self) -> None:
        """Also waits until the kubelet is healthy."""
        self._units.boot(self._layout)
        self._units.start_kubelet(self._layout)
        self._units.await_kubelet(self._layout)

    def load_image(self, archive: Path) -> None:
        self._units.load_image(self._layout, archive)

    @property
    def _control(self) -> SupervisorClient:
        return SupervisorClient(self._layout.control)


class LocalCluster(Cluster):
    """A cluster of local binaries."""

    def __init__(self, units: Units, end: Callable[[], None], lifeline: Lifeline | None = None) -> None:
        self._units = units
        self._end = end
        self._lifeline = lifeline
        self.owned = lifeline is not None
        self.kubeconfig = units.layout.kubeconfig
        self.log_dir = units.layout.logs
        self.nodes: tuple[LocalNode, ...] = tuple(LocalNode(units, node) for node in units.layout.node_layouts)

    @property
    def env(self) -> Mapping[str, str]:
        """Variables with which kubectl, helm and client libraries use this cluster and caches of its own."""
        root = self._units.layout.root
        bypass = [os.environ.get("NO_PROXY", ""), str(self._units.layout.network)]
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(root / "kubectl-cache"),
            "HELM_CACHE_HOME": str(root / "helm" / "cache"),
            "HELM_CONFIG_HOME": str(root / "helm" / "config"),
            "HELM_DATA_HOME": str(root / "helm" / "data"),
            "NO_PROXY": ",".join(filter(None, bypass)),
            "PATH": self._units.assets.search_path,
        }

    def kubectl(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        return run([self._units.assets["kubectl"], *args], check=check, stdin=stdin, timeout=timeout, env=self.env)

    def helm(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> CompletedProcess[str]:
        return run([self._units.assets["helm"], *args], check=check, stdin=stdin, timeout=timeout, env=self.env)

    def program(self, name: str) -> Path:
        return Path(self._units.assets[name])

    def stop_apiserver(self) -> None:
        self._units.control.stop("apiserver")

    def start_apiserver(self) -> None:
        self._units.control.restart("apiserver")
        self._units.await_apiserver()

    def release(self) -> None:
        if self._lifeline is None:
            return
        layout = self._units.layout
        state = State.read(layout.state)
        if state is not None:
            replace(state, owner=None).write(layout)
        self._lifeline.detach()
        self._lifeline, self.owned = None, False

    def down(self) -> None:
        if self._lifeline is None:
            self._end()
            return
        status = self._lifeline.cut()
        self._lifeline, self.owned = None, False
        if status != 0 or self._units.layout.root.exists():
            raise ClusterError(f"the cluster's monitor ended with status {status}; run down again")
