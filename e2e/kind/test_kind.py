"""The kind provider: the demo on a cluster of kind, in Debian's Docker Engine, with a node image that is built here."""

import io
import os
import subprocess
from collections.abc import Iterator

import pytest

from gpufleet_e2e.demo import cli, scenario
from gpufleet_e2e.demo.context import DEVICE_PLUGIN
from gpufleet_e2e.demo.terminal import Terminal, make_console
from gpufleet_e2e.support.docker.engine import DockerEngine, docker_engine
from gpufleet_e2e.support.docker.kind_node import load_node_image
from gpufleet_testbed import Cluster, ClusterConfig, up
from gpufleet_testbed.config import BUILT_NODE_IMAGE, Provider

WAIT_SECONDS = 240.0
pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("GPUFLEET_E2E_KIND"), reason="takes five to fifteen minutes: set GPUFLEET_E2E_KIND=1"
    ),
    pytest.mark.timeout(1800),  # the first run on a machine builds the node image
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path_factory.mktemp("kind")) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture(scope="module")
def kind_cluster(engine: DockerEngine) -> Iterator[Cluster]:
    config = ClusterConfig.from_environment(
        provider=Provider.KIND, name="kind", nodes=cli.NODES, kind_node_image=BUILT_NODE_IMAGE
    )
    load_node_image(engine)
    with up(config) as found:
        yield found


def test_demo_runs_on_kind(kind_cluster: Cluster) -> None:
    output = io.StringIO()
    terminal = Terminal(make_console(output, {}), scenario.STEPS)
    assert cli.run_on(kind_cluster, terminal, WAIT_SECONDS, DEVICE_PLUGIN) == 0, output.getvalue()


def test_nodes_restart_and_boot(kind_cluster: Cluster) -> None:
    first, second = kind_cluster.nodes
    first.restart_containerd()
    first.restart_kubelet()
    second.kill()
    second.boot()
    for node in kind_cluster.nodes:
        assert node.run(["systemctl", "is-active", "kubelet", "containerd"]).stdout.split() == ["active", "active"]
        assert (node.kubelet_dir / "pod-resources" / "kubelet.sock").is_socket()
    assert list(kind_cluster.collect_logs().rglob("kubelet.log"))


def test_nothing_is_left(engine: DockerEngine, kind_cluster: Cluster) -> None:
    kind_cluster.down()
    assert engine("ps", "--all", "--quiet") == ""
    assert not kind_cluster.kubeconfig.parent.exists()
    bridge = engine("network", "inspect", "--format={{.Id}}", "kind")[:12]
    links = subprocess.run(["ip", "-o", "link", "show", "master", f"br-{bridge}"], capture_output=True, check=True)
    assert links.stdout == b""
