"""The image of a kind node that is built without a registry, with a fake engine and a fake module of kind."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.kind.node_image import build
from gpufleet_testbed.versions import KUBERNETES
from gpufleet_testing.testbed import FakeRunner, RecordedProgress

LISTED = f"""registry.k8s.io/kube-apiserver:{KUBERNETES.version}
registry.k8s.io/coredns/coredns:v1.14.2
registry.k8s.io/pause:3.10.2
registry.k8s.io/etcd:3.6.8-0
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "kind"
    config, source = folder / "images/base/files/etc/containerd", folder / "pkg/build/nodeimage"
    config.mkdir(parents=True)
    source.mkdir(parents=True)
    (config / "config.toml").write_text('  sandbox_image = "registry.k8s.io/pause:3.10"\n')
    (source / "const_cni.go").write_text('const kindnetdImage = "docker.io/kindest/kindnetd:v1"\n')
    (source / "const_storage.go").write_text(
        'const storageProvisionerImage = "docker.io/kindest/provisioner:v1"\nconst storageHelperImage = "helper:v1"\n'
    )
    return folder


def test_images_are_those_of_kubeadm_and_of_kind(module: Path, runner: FakeRunner) -> None:
    runner.answer("/bin/kubeadm", stdout=LISTED)
    assert build.required_images(module, "/bin/kubeadm", runner) == {
        f"registry.k8s.io/kube-apiserver:{KUBERNETES.version}": "kube-apiserver",
        "registry.k8s.io/coredns/coredns:v1.14.2": "coredns",
        "registry.k8s.io/etcd:3.6.8-0": "etcd",
        "registry.k8s.io/pause:3.10": "pause",
        "docker.io/kindest/kindnetd:v1": "kindnetd",
        "docker.io/kindest/provisioner:v1": "pause",
        "helper:v1": "pause",
    }


def test_a_module_without_the_expected_constants_is_named(module: Path, runner: FakeRunner) -> None:
    (module / "pkg/build/nodeimage/const_cni.go").write_text("")
    with pytest.raises(ClusterError, match=f"kind's module in {module} does not name its images"):
        build.required_images(module, "/bin/kubeadm", runner)


def test_an_image_that_the_engine_has_is_not_built_again(
    tmp_path: Path, runner: FakeRunner, progress: RecordedProgress
) -> None:
    name = build.build_node_image(tmp_path, "/bin/kind", progress, runner=runner)
    assert runner.calls == [["docker", "image", "inspect", name]]


def test_names_of_all_images_come_first_in_the_archive(tmp_path: Path) -> None:
    """kind reads the names of the first image only if it meets manifest.json before `repositories`."""
    for name in ("layer", "manifest.json", "repositories", "kubeadm", "kubelet", "kubectl"):
        (tmp_path / name).write_text(name)
    (tmp_path / "repositories").write_text('{"kindest/kindnetd": {"v1": "x"}, "registry.k8s.io/etcd": {"v2": "y"}}')

    def save(args: Sequence[str], **_: object) -> CompletedProcess[str]:
        with tarfile.open(args[2].partition("=")[2], "w") as archive:
            for name in ("layer", "manifest.json", "repositories"):
                archive.add(tmp_path / name, name)
        return CompletedProcess(list(args), 0, "", "")

    assets = Assets({name: tmp_path / name for name in ("kubeadm", "kubelet", "kubectl")})
    with tarfile.open(build.server_archive(tmp_path, assets, ["a", "b"], save)) as server:
        images = server.extractfile("kubernetes/server/bin/kube-apiserver.tar")
        assert images is not None
        with tarfile.open(fileobj=images) as archive:
            assert archive.getnames() == ["repositories", "layer", "manifest.json"]
            names = archive.extractfile("repositories")
            assert names is not None
            assert set(json.load(names)) == {"docker.io/kindest/kindnetd", "registry.k8s.io/etcd"}
        version = server.extractfile("kubernetes/version")
        assert version is not None
        assert version.read().decode() == KUBERNETES.version
        assert {"kubernetes/server/bin/kube-proxy.tar", "kubernetes/server/bin/kubelet"} <= set(server.getnames())
