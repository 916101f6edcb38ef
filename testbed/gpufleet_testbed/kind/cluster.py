"""Handles of a kind cluster and its nodes."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.config import ENV_NODE_IMAGE, ENV_PROVIDER, ClusterConfig, Provider
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.handles import Cluster, Node
from gpufleet_testbed.host.command import Runner
from gpufleet_testbed.kind import commands, monitor
from gpufleet_testbed.waiting import wait_until

_START_SECONDS = 120.0
_APISERVER = "kube-apiserver"


class KindNode(Node):
    """A node that is a Docker container."""

    def __init__(self, cluster: "KindCluster", name: str, root: Path) -> None:
        self._cluster = cluster
        self.name = name
        self.driver_dir = commands.driver_dir(root, name)
        self.kubelet_dir = commands.kubelet_dir(root, name)

    def command(self, args: Sequence[str]) -> list[str]:
        return commands.execute(self.name, args, stdin=True)

    def run(
        self, args: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        # `timeout` runs inside, because killing `docker exec` does not kill its command.
        limited = ["timeout", "--signal=KILL", str(timeout), *args]
        command = commands.execute(self.name, limited, stdin=stdin is not None)
        return self._cluster.runner(command, check=check, stdin=stdin, timeout=timeout + 5)

    def stop_kubelet(self) -> None:
        self._do(commands.systemctl(self.name, "stop", "kubelet"))

    def start_kubelet(self) -> None:
        self._do(commands.systemctl(self.name, "start", "kubelet"))
        self._await_kubelet()

    def stop_containerd(self) -> None:
        self._do(commands.systemctl(self.name, "stop", "containerd"))

    def start_containerd(self) -> None:
        self._do(commands.systemctl(self.name, "start", "containerd"))

        def answers() -> bool:
            return self.run(["ctr", "version"], check=False).returncode == 0

        wait_until(answers, f"containerd of {self.name} answers", timeout=_START_SECONDS)

    def freeze(self) -> None:
        self._do(commands.container("pause", self.name))

    def thaw(self) -> None:
        self._do(commands.container("unpause", self.name))

    def kill(self) -> None:
        self._do(commands.container("kill", self.name))

    def boot(self) -> None:
        self._do(commands.container("start", self.name))
        self._await_kubelet()

    def load_image(self, archive: Path) -> None:
        self._cluster.kind(commands.load_archive(self._cluster.name, archive, [self.name]))

    def _do(self, command: list[str]) -> None:
        self._cluster.runner(command, timeout=120)

    def _await_kubelet(self) -> None:
        def healthy() -> bool:
            asked = self._cluster.kubectl("get", "--raw", f"/api/v1/nodes/{self.name}/proxy/healthz", check=False)
            return asked.returncode == 0

        wait_until(healthy, f"kubelet of {self.name} is healthy", timeout=_START_SECONDS)


class KindCluster(Cluster):
    """A cluster in Docker containers."""

    def __init__(
        self, root: Path, config: ClusterConfig, *, assets: Assets, runner: Runner, end: Callable[[], None]
    ) -> None:
        self._root = root
        self._assets = assets
        self._end = end
        self._lifeline: int | None = None
        self._monitor: subprocess.Popen[bytes] | None = None
        self.name = config.name
        image = {ENV_NODE_IMAGE: config.kind_node_image} if config.kind_node_image else {}
        self.environment = {ENV_PROVIDER: str(Provider.KIND), **image}
        self.runner = runner
        self.owned = False
        self.kubeconfig = root / "kubeconfig"
        self.log_dir = root / "log"
        self.nodes: tuple[KindNode, ...] = tuple(
            KindNode(self, node, root) for node in commands.worker_names(config.name, config.nodes)
        )

    def kubectl(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60
    ) -> CompletedProcess[str]:
        return self._client("kubectl", args, check=check, stdin=stdin, timeout=timeout)

    def helm(
        self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> CompletedProcess[str]:
        return self._client("helm", args, check=check, stdin=stdin, timeout=timeout)

    def program(self, name: str) -> Path:
        return Path(self._assets[name])

    def kind(self, command: Sequence[str], *, check: bool = True) -> CompletedProcess[str]:
        """Runs a command line of kind with the pinned binary."""
        return self.runner([self._assets["kind"], *command[1:]], check=check, timeout=600)

    def stop_apiserver(self) -> None:
        node = commands.control_plane_name(self.name)
        self.runner(commands.move_static_pod(node, _APISERVER, starts=False))

        def ended() -> bool:
            return not self.runner(commands.running_containers(node, _APISERVER)).stdout.strip()

        wait_until(ended, "the apiserver has ended", timeout=_START_SECONDS)

    def start_apiserver(self) -> None:
        self.runner(commands.move_static_pod(commands.control_plane_name(self.name), _APISERVER, starts=True))

        def ready() -> bool:
            return self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

        wait_until(ready, "the apiserver is ready", timeout=_START_SECONDS)

    def collect_logs(self) -> Path:
        # It fails if one command fails in one node, for example in one that does not run; the other files are there.
        exported = self.kind(commands.export_logs(self.name, self.log_dir), check=False)
        if exported.returncode != 0 and not any(self.log_dir.glob("*/*")):
            raise ClusterError(f"kind exported no logs: {exported.stderr.strip()}")
        return self.log_dir

    def own(self) -> None:
        """Ties the cluster to this process: a monitor process removes it when this process has ended."""
        read_end, self._lifeline = os.pipe()
        delete = [self._assets["kind"], *commands.delete(self.name, self.kubeconfig)[1:]]
        self._monitor = subprocess.Popen(monitor.command(delete), stdin=read_end, start_new_session=True)
        os.close(read_end)
        self.owned = True

    def release(self) -> None:
        if self._lifeline is not None:
            os.write(self._lifeline, monitor.DETACH)
            os.close(self._lifeline)
            self._lifeline, self.owned = None, False
            if self._monitor is not None:
                self._monitor.wait()  # it ends as soon as it reads that
                self._monitor = None

    def down(self) -> None:
        self.release()  # this process removes it, not the monitor
        self._end()

    def _client(
        self, program: str, args: Sequence[str], *, check: bool, stdin: str | None, timeout: float
    ) -> CompletedProcess[str]:
        env = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self._root / "kubectl-cache")}
        return self.runner([self._assets[program], *args], check=check, stdin=stdin, timeout=timeout, env=env)
