"""Starts and stops the kind cluster by the rules of the local one: one per machine, taken over if it matches."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from gpufleet_testbed.binaries.assets import Assets, find_assets
from gpufleet_testbed.config import (
    BUILT_NODE_IMAGE,
    DEFAULT_NAME,
    ClusterConfig,
    Provider,
    down_command,
    repository_root,
)
from gpufleet_testbed.errors import ClusterError, ConflictError, HostError, NotRunningError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.host.packages import Requirement
from gpufleet_testbed.host.system import Host, System
from gpufleet_testbed.images.small import busybox_archive
from gpufleet_testbed.kind import commands
from gpufleet_testbed.kind.cluster import KindCluster
from gpufleet_testbed.kind.node_image.build import build_node_image
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.status import Status
from gpufleet_testbed.versions import KIND_NODE_IMAGE, KIND_TOOLS, PROJECT_IMAGE

_STATE = "state.json"
_READY = 'jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
_COMPARED = ("nodes", "node_status_seconds", "audit_policy", "kind_node_image")
_READY_SECONDS = 180
_REQUIREMENTS = (Requirement("docker", "docker.io"), Requirement("/bin/busybox", "busybox-static"))


class KindLifecycle:
    """The kind cluster of one name in this machine's Docker engine."""

    def __init__(
        self,
        cache: Path,
        progress: Progress,
        name: str = DEFAULT_NAME,
        *,
        runner: Runner = run,
        system: System | None = None,
        assets: Assets | None = None,
    ) -> None:
        self._cache = cache
        self._progress = progress
        self._run = runner
        self._system = system or Host()
        self._found = assets
        self._name = name
        self._root = cache / ("kind" if name == DEFAULT_NAME else f"kind-{name}")

    def up(self, config: ClusterConfig, *, detach: bool) -> KindCluster:
        """Starts the cluster, or takes over the one that runs; see `gpufleet_testbed.up`."""
        problems = kind_problems(self._system, self._run)
        if problems:
            raise HostError(problems)
        config = replace(config, provider=Provider.KIND)
        if self._exists():
            cluster = self._take_over(config)
        else:
            cluster = self._create(config)
            if not detach:
                cluster.own()
        if config.project_image:
            self._load_project_image(cluster)
        return cluster

    def build(self, config: ClusterConfig) -> None:
        """Builds everything that `up` needs, without starting anything."""
        problems = kind_problems(self._system, self._run)
        if problems:
            raise HostError(problems)
        self._assets()
        busybox_archive(self._cache, self._run)
        self._node_image(config)
        if config.project_image:
            self._run(commands.build_image(repository_root(), PROJECT_IMAGE), timeout=1200)

    def attach(self) -> KindCluster:
        """Returns a handle of the running cluster.

        Raises:
            NotRunningError: It does not run.
        """
        state = self._state()
        if state is None or not self._exists():
            raise NotRunningError("no cluster is running; start one with `make cluster`")
        return self._handle(_config_of(state))

    def down(self) -> None:
        """Removes the cluster and its files."""
        self._kind(commands.delete(self._name, self._root / "kubeconfig"))
        if self._root.exists():
            shutil.rmtree(self._root)

    def status(self) -> Status | None:
        """Returns the state of the running cluster; None when it does not run."""
        state = self._state()
        if state is None or not self._exists():
            return None
        config = _config_of(state)
        cluster = self._handle(config)
        ready = cluster.kubectl("get", "nodes", "-o", _READY, check=False).stdout.split()
        return Status(
            provider=Provider.KIND,
            kubernetes=config.kubernetes,
            nodes={node.name: f"{node.name}=True" in ready for node in cluster.nodes},
            components={},
            kubeconfig=cluster.kubeconfig,
            log_dir=cluster.log_dir,
            owner=None,
            started=state["started"],
        )

    def _create(self, config: ClusterConfig) -> KindCluster:
        if self._root.exists():
            shutil.rmtree(self._root)
        cluster = self._handle(config)
        for node in cluster.nodes:
            node.driver_dir.mkdir(parents=True)
            node.kubelet_dir.mkdir()
        if config.audit_policy:
            (self._root / "audit").mkdir()
            (self._root / "audit" / "audit-policy.yaml").write_text(config.audit_policy)
        (self._root / "kind.yaml").write_text(commands.cluster_config(config, self._root))
        image = self._node_image(config)
        with self._progress.step(f"starting {config.nodes} kind nodes and the control plane"):
            try:
                self._kind(commands.create(self._name, self._root, cluster.kubeconfig, image))
                # kind waits for its control plane only.
                limit = f"--timeout={_READY_SECONDS}s"
                cluster.kubectl("wait", "nodes", "--all", "--for=condition=Ready", limit, timeout=_READY_SECONDS + 10)
                cluster.load_image(busybox_archive(self._cache, self._run))
            except BaseException:  # KeyboardInterrupt included: no part of the cluster may stay
                self.down()
                raise
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        (self._root / _STATE).write_text(json.dumps({"config": asdict(config), "started": started}))
        return cluster

    def _node_image(self, config: ClusterConfig) -> str:
        if config.kind_node_image != BUILT_NODE_IMAGE:
            return config.kind_node_image or KIND_NODE_IMAGE
        return build_node_image(self._cache, self._assets()["kind"], self._progress, runner=self._run)

    def _take_over(self, config: ClusterConfig) -> KindCluster:
        state = self._state()
        if state is None:
            raise ConflictError(f"a kind cluster named {self._name} exists that this test bed did not start")
        differing = [
            f"{name} is {state['config'].get(name)}, not {getattr(config, name)}"
            for name in _COMPARED
            if state["config"].get(name) != getattr(config, name)
        ]
        if differing:
            raise ConflictError(
                f"a different cluster is running: {'; '.join(differing)}. "
                f"Stop it with `{down_command(self._name)}`, or request a matching one"
            )
        self._progress.say(f"          taking over the kind cluster that has run since {state['started']}")
        return self._handle(config)

    def _load_project_image(self, cluster: KindCluster) -> None:
        with self._progress.step(f"building {PROJECT_IMAGE} and loading it"), tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "image.tar"
            self._run(commands.build_image(repository_root(), PROJECT_IMAGE), timeout=1200)
            self._run(commands.save_image(archive, PROJECT_IMAGE), timeout=300)
            cluster.load_image(archive)

    def _exists(self) -> bool:
        return self._name in self._kind(commands.list_clusters()).stdout.split()

    def _state(self) -> dict[str, Any] | None:
        path = self._root / _STATE
        if not path.exists():
            return None
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def _handle(self, config: ClusterConfig) -> KindCluster:
        return KindCluster(self._root, config, assets=self._assets(), runner=self._run, end=self.down)

    def _assets(self) -> Assets:
        if self._found is None:
            self._found = find_assets(self._cache, self._progress, tools=KIND_TOOLS, runner=self._run)
        return self._found

    def _kind(self, command: list[str]) -> CompletedProcess[str]:
        return self._run([self._assets()["kind"], *command[1:]], timeout=600)


def _config_of(state: Mapping[str, Any]) -> ClusterConfig:
    return ClusterConfig(**{**state["config"], "provider": Provider.KIND})


def kind_problems(system: System, runner: Runner) -> list[Problem]:
    """Returns what the machine lacks to run kind."""
    problems = [
        Problem(
            f"{requirement.needed} is missing",
            f"apt-get install {requirement.package}, or the equivalent of your system",
        )
        for requirement in _REQUIREMENTS
        if not requirement.met(system)
    ]
    if not problems:
        try:
            answered = runner(["docker", "info"], check=False, timeout=20).returncode == 0
        except (ClusterError, TimeoutError):
            answered = False
        if not answered:
            fix = "start it (systemctl start docker), and let this user use it (usermod -aG docker $USER)"
            problems.append(Problem("the Docker engine does not answer", fix))
    return problems
