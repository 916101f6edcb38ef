from collections.abc import Callable
from pathlib import Path

import pytest

from gpufleet_testbed.binaries.assets import Assets, find_assets
from gpufleet_testbed.errors import HostError
from gpufleet_testbed.versions import CONTAINERD, ETCD, KUBEADM, KUBERNETES, NODE_TOOLS
from gpufleet_testing.testbed import RecordedProgress

Script = Callable[[str, str], Path]


def test_own_binaries_are_used_and_shown(tmp_path: Path, script: Script, progress: RecordedProgress) -> None:
    for name, _ in (*ETCD.commands, *CONTAINERD.commands):
        script(name, f"echo {name} version 9")
    environ = {"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)}
    found = find_assets(tmp_path / "cache", progress, tools=(ETCD, CONTAINERD), environ=environ)
    assert found["ctr"] == str(tmp_path / "ctr")
    assert "etcd version 9" in "\n".join(progress.lines)


def test_each_missing_or_unusable_binary_is_named(tmp_path: Path, script: Script, progress: RecordedProgress) -> None:
    script("etcd", "exit 0").chmod(0o644)
    environ = {"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)}
    with pytest.raises(HostError) as caught:
        find_assets(tmp_path / "cache", progress, tools=(ETCD, CONTAINERD), environ=environ)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 4
    assert found[0] == f"{tmp_path / 'etcd'} is not executable. Fix: chmod +x {tmp_path / 'etcd'}"
    assert found[1].endswith(f"has no containerd. Fix: put containerd of {CONTAINERD.version} there")


def test_a_binary_that_does_not_run_is_named(tmp_path: Path, script: Script, progress: RecordedProgress) -> None:
    script("etcd", "echo wrong machine >&2; exit 126")
    with pytest.raises(HostError, match="does not run: wrong machine"):
        find_assets(tmp_path, progress, tools=(ETCD,), environ={"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)})


@pytest.mark.parametrize(
    ("shown", "fix"),
    [
        ("Kubernetes v1.34.1", "set GPUFLEET_CLUSTER_KUBERNETES=1.34"),
        ("Kubernetes v1.33.9", f"put {KUBERNETES.version} there"),
    ],
)
def test_own_binaries_of_another_kubernetes_are_named(
    tmp_path: Path, script: Script, progress: RecordedProgress, shown: str, fix: str
) -> None:
    for name, _ in KUBERNETES.commands:
        script(name, f"echo {shown if name == 'kubelet' else KUBERNETES.version}")
    with pytest.raises(HostError) as caught:
        find_assets(tmp_path, progress, tools=(KUBERNETES,), environ={"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)})
    (problem,) = caught.value.problems
    found = shown.removeprefix("Kubernetes v").rpartition(".")[0]
    assert str(problem) == f"{tmp_path / 'kubelet'} is of Kubernetes {found}, not 1.36. Fix: {fix}"


def test_own_binaries_of_a_kind_node_are_used(tmp_path: Path, script: Script, progress: RecordedProgress) -> None:
    """As the real one, this kubeadm has no option --version."""
    for tool in NODE_TOOLS:
        for name, _ in tool.commands:
            script(name, f"echo {tool.version}")
    script("kubeadm", f"""[ "$*" = "version --output=short" ] || exit 1\necho {KUBEADM.version}""")
    found = find_assets(
        tmp_path / "cache", progress, tools=NODE_TOOLS, environ={"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)}
    )
    assert found["kubeadm"] == str(tmp_path / "kubeadm")


def test_own_kubeadm_of_another_kubernetes_is_named(tmp_path: Path, script: Script, progress: RecordedProgress) -> None:
    """No variable selects another version for kind."""
    script("kubeadm", "echo v1.34.4")
    with pytest.raises(HostError) as caught:
        find_assets(tmp_path / "cache", progress, tools=(KUBEADM,), environ={"GPUFLEET_CLUSTER_ASSETS": str(tmp_path)})
    (problem,) = caught.value.problems
    assert str(problem) == f"{tmp_path / 'kubeadm'} is of Kubernetes 1.34, not 1.36. Fix: put {KUBEADM.version} there"


def test_search_path_has_each_folder_once_and_first() -> None:
    assets = Assets({"a": Path("/one/a"), "b": Path("/two/b"), "c": Path("/one/c")})
    assert assets.search_path.split(":")[:2] == ["/one", "/two"]
    assert assets.search_path.split(":").count("/one") == 1
