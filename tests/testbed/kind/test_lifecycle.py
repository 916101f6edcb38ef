"""The kind provider with a fake engine: what it asks for, in which order, and what it rejects."""

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.config import ClusterConfig
from gpufleet_testbed.errors import ClusterError, ConflictError, HostError, NotRunningError
from gpufleet_testbed.kind.lifecycle import KindLifecycle
from gpufleet_testbed.kind.node_image.build import node_image_name
from gpufleet_testbed.versions import KIND_NODE_IMAGE, KIND_TOOLS
from gpufleet_testing.testbed import FakeRunner, FakeSystem, RecordedProgress

CONFIG = ClusterConfig(nodes=2, project_image=False)


@pytest.fixture(autouse=True)
def busybox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "gpufleet_testbed.kind.lifecycle.busybox_archive", lambda cache, runner: tmp_path / "busybox.tar"
    )


@pytest.fixture
def kind(tmp_path: Path, progress: RecordedProgress, runner: FakeRunner, system: FakeSystem) -> KindLifecycle:
    assets = Assets({name: Path("/bin") / name for tool in KIND_TOOLS for name, _ in tool.commands})
    return KindLifecycle(tmp_path, progress, runner=runner, system=system, assets=assets)


def running(runner: FakeRunner) -> None:
    runner.answer("/bin/kind", "get", "clusters", stdout="other\ngpufleet\n")


def test_up_loads_the_small_image_on_every_node(kind: KindLifecycle, runner: FakeRunner, tmp_path: Path) -> None:
    cluster = kind.up(CONFIG, detach=True)
    assert [call[1:3] for call in runner.calls] == [
        ["info"],
        ["get", "clusters"],
        ["create", "cluster"],
        ["wait", "nodes"],
        ["load", "image-archive"],
        ["load", "image-archive"],
    ]
    assert [node.name for node in cluster.nodes] == ["gpufleet-worker", "gpufleet-worker2"]
    assert all(node.driver_dir.is_dir() for node in cluster.nodes)
    assert not cluster.owned
    assert (tmp_path / "kind" / "kind.yaml").exists()


def test_the_project_image_is_built_saved_and_loaded(kind: KindLifecycle, runner: FakeRunner) -> None:
    kind.up(ClusterConfig(nodes=1), detach=True)
    words = [" ".join(call[:2]) for call in runner.calls]
    assert words.index("docker build") < words.index("docker save")
    assert runner.calls[-1][1:3] == ["load", "image-archive"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, KIND_NODE_IMAGE), ("mirror.example/node:1", "mirror.example/node:1"), ("build", node_image_name())],
)
def test_nodes_have_the_chosen_image(
    kind: KindLifecycle, runner: FakeRunner, chosen: str | None, expected: str
) -> None:
    kind.up(replace(CONFIG, kind_node_image=chosen), detach=True)
    (create,) = (call for call in runner.calls if call[1:3] == ["create", "cluster"])
    assert f"--image={expected}" in create


def test_later_commands_need_the_chosen_provider_and_image(kind: KindLifecycle) -> None:
    assert kind.up(CONFIG, detach=True).environment == {"GPUFLEET_CLUSTER_PROVIDER": "kind"}
    kind.down()
    found = kind.up(replace(CONFIG, kind_node_image="build"), detach=True).environment
    assert found == {"GPUFLEET_CLUSTER_PROVIDER": "kind", "GPUFLEET_KIND_NODE_IMAGE": "build"}


def test_cluster_with_another_node_image_is_rejected(kind: KindLifecycle, runner: FakeRunner) -> None:
    kind.up(CONFIG, detach=True)
    running(runner)
    with pytest.raises(ConflictError, match="kind_node_image is None, not build"):
        kind.up(replace(CONFIG, kind_node_image="build"), detach=True)


def test_a_matching_cluster_is_taken_over(kind: KindLifecycle, runner: FakeRunner) -> None:
    kind.up(CONFIG, detach=True)
    running(runner)
    runner.calls.clear()
    cluster = kind.up(CONFIG, detach=False)
    assert not cluster.owned
    assert not any("create" in call for call in runner.calls)
    assert kind.attach().nodes[1].name == "gpufleet-worker2"


def test_different_or_foreign_cluster_is_rejected(kind: KindLifecycle, runner: FakeRunner) -> None:
    running(runner)
    with pytest.raises(ConflictError, match="that this test bed did not start"):
        kind.up(CONFIG, detach=True)
    runner.rules.clear()
    kind.up(CONFIG, detach=True)
    running(runner)
    with pytest.raises(ConflictError, match="nodes is 2, not 3"):
        kind.up(ClusterConfig(nodes=3, project_image=False), detach=True)


def test_a_failed_start_is_removed(kind: KindLifecycle, runner: FakeRunner, tmp_path: Path) -> None:
    runner.answer("/bin/kind", "create", status=1)
    with pytest.raises(ClusterError):
        kind.up(CONFIG, detach=True)
    assert runner.calls[-1][1:3] == ["delete", "cluster"]
    assert not (tmp_path / "kind").exists()


def test_down_removes_cluster_and_folder(kind: KindLifecycle, runner: FakeRunner, tmp_path: Path) -> None:
    kind.up(CONFIG, detach=True)
    kind.down()
    assert runner.calls[-1][:3] == ["/bin/kind", "delete", "cluster"]
    assert not (tmp_path / "kind").exists()


def test_nothing_running_has_no_handle_and_no_status(kind: KindLifecycle) -> None:
    assert kind.status() is None
    with pytest.raises(NotRunningError):
        kind.attach()


def test_status_lists_ready_nodes(kind: KindLifecycle, runner: FakeRunner) -> None:
    kind.up(CONFIG, detach=True)
    running(runner)
    runner.answer("/bin/kubectl", "get", "nodes", stdout="gpufleet-worker=True\ngpufleet-worker2=False\n")
    status = kind.status()
    assert status is not None
    assert status.nodes == {"gpufleet-worker": True, "gpufleet-worker2": False}
    assert not status.healthy


def test_unreachable_engine_is_named_with_the_fix(kind: KindLifecycle, runner: FakeRunner) -> None:
    runner.answer("docker", "info", status=1)
    with pytest.raises(HostError, match=r"Docker engine does not answer\. Fix: start it"):
        kind.up(CONFIG, detach=True)


def test_missing_docker_is_named_with_the_fix(kind: KindLifecycle, system: FakeSystem) -> None:
    system.programs_missing = {"docker"}
    with pytest.raises(HostError, match=r"docker is missing\. Fix: apt-get install docker\.io"):
        kind.up(CONFIG, detach=True)


def test_node_actions_are_docker_and_systemd(kind: KindLifecycle, runner: FakeRunner) -> None:
    node = kind.up(CONFIG, detach=True).nodes[0]
    runner.calls.clear()
    node.restart_kubelet()
    node.freeze()
    node.thaw()
    node.kill()
    node.boot()
    lines = [" ".join(call) for call in runner.calls]
    assert lines == [
        "docker exec gpufleet-worker systemctl stop kubelet",
        "docker exec gpufleet-worker systemctl start kubelet",
        "/bin/kubectl get --raw /api/v1/nodes/gpufleet-worker/proxy/healthz",
        "docker pause gpufleet-worker",
        "docker unpause gpufleet-worker",
        "docker kill gpufleet-worker",
        "docker start gpufleet-worker",
        "/bin/kubectl get --raw /api/v1/nodes/gpufleet-worker/proxy/healthz",
    ]


@pytest.mark.filterwarnings("error")
def test_release_waits_for_the_end_of_the_monitor(kind: KindLifecycle) -> None:
    cluster = kind.up(CONFIG, detach=False)
    assert cluster.owned
    cluster.release()
    del cluster
    gc.collect()  # of a process that was not waited for, this warns


def test_logs_of_other_nodes_are_kept_when_one_node_has_none(kind: KindLifecycle, runner: FakeRunner) -> None:
    cluster = kind.up(CONFIG, detach=True)
    runner.answer("/bin/kind", "export", status=1)
    with pytest.raises(ClusterError, match="kind exported no logs"):
        cluster.collect_logs()
    (cluster.log_dir / "gpufleet-worker").mkdir(parents=True)
    (cluster.log_dir / "gpufleet-worker" / "kubelet.log").write_text("x")
    assert cluster.collect_logs() == cluster.log_dir


def test_a_command_in_a_node_has_its_limit_inside(kind: KindLifecycle, runner: FakeRunner) -> None:
    node = kind.up(CONFIG, detach=True).nodes[0]
    node.run(["ls"], timeout=7)
    assert runner.calls[-1] == ["docker", "exec", "gpufleet-worker", "timeout", "--signal=KILL", "7", "ls"]
