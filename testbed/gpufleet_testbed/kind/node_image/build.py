"""Builds the image of a kind node in the Docker engine of this machine."""

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpufleet_testbed.binaries.assets import Assets, find_assets
from gpufleet_testbed.binaries.go_build import MODULES, build_key, find_go
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.images.small import BUSYBOX, compile_pause
from gpufleet_testbed.kind.commands import build_image, save_image
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import KIND, KUBERNETES, NODE_TOOLS

BASE_IMAGE = "debian:bookworm-slim"
"""systemd 252 starts on cgroup v1 and v2; the one of kind's own base image only on v2."""
_STAGES = "localhost/gpufleet-kind"
_FILES = Path(__file__).parent
_CONTEXT = ("Dockerfile", "kindnetd", "storage.yaml")
_SERVER = "kubernetes/server/bin"
_ARCHIVES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
"""`kind build node-image` expects an archive of these names each."""


def node_image_name() -> str:
    """Returns the name of the image, with a hash of everything that it is made of."""
    digest = hashlib.sha256(repr((KIND.version, BASE_IMAGE, [build_key(tool) for tool in NODE_TOOLS])).encode())
    for name in (*_CONTEXT, "build.py"):
        digest.update((_FILES / name).read_bytes())
    return f"{_STAGES}-node:{KUBERNETES.version}-{digest.hexdigest()[:10]}"


def build_node_image(cache: Path, kind: str, progress: Progress, *, runner: Runner = run) -> str:
    """Builds the image unless the engine has it, and returns its name.

    Args:
        cache: Folder of the binaries.
        kind: Path of kind's binary.
        progress: Where steps are shown.
        runner: Runs programs.

    Raises:
        ClusterError: A step failed, for example because the engine neither has the base image nor can pull it.
    """
    name = node_image_name()
    if runner(["docker", "image", "inspect", name], check=False).returncode == 0:
        return name
    assets = find_assets(cache, progress, tools=NODE_TOOLS, runner=runner)
    module = _module_folder(runner)
    with (
        progress.step(f"building the node image of kind {KIND.version}"),
        tempfile.TemporaryDirectory(prefix="gpufleet-kind-") as scratch,
    ):
        folder = Path(scratch)
        base = _build_base(module, _context(folder / "context", assets, runner), runner)
        images = _build_images(folder / "context", required_images(module, assets["kubeadm"], runner), runner)
        server = server_archive(folder, assets, images, runner)
        stage = f"{_STAGES}-node:stage"
        command = [kind, "build", "node-image", "--type=file", f"--base-image={base}", f"--image={stage}", str(server)]
        runner(command, timeout=900)
        runner(build_image(folder / "context", name, target="node"), timeout=300)
    return name


def required_images(module: Path, kubeadm: str, runner: Runner) -> dict[str, str]:
    """Returns the images that kubeadm and kind start: the name to the target in the Dockerfile."""
    listed = runner([kubeadm, "config", "images", "list", f"--kubernetes-version={KUBERNETES.version}"]).stdout.split()
    images = {name: name.rpartition("/")[2].partition(":")[0] for name in listed if "/pause:" not in name}
    config = (module / "images/base/files/etc/containerd/config.toml").read_text()
    source = "".join(
        (module / "pkg/build/nodeimage" / file).read_text() for file in ("const_cni.go", "const_storage.go")
    )
    sandbox = re.findall(r'sandbox_image = "(\S+)"', config)
    constants = dict(re.findall(r'^const (\w+Image) = "(\S+)"', source, re.MULTILINE))
    if len(sandbox) != 1 or "kindnetdImage" not in constants:
        raise ClusterError(f"kind's module in {module} does not name its images as expected")
    images[sandbox[0]] = "pause"
    images[constants.pop("kindnetdImage")] = "kindnetd"
    # `kind build` looks for the images of its storage provisioner, which the manifest of this image does not use.
    return images | dict.fromkeys(constants.values(), "pause")


def _module_folder(runner: Runner) -> Path:
    command = [find_go(runner), "mod", "download", "-json", f"{KIND.module}@{KIND.version}"]
    answer = runner(command, timeout=300, env={"GOWORK": "off"}, cwd=MODULES / KIND.name)
    return Path(json.loads(answer.stdout)["Dir"])


def _context(folder: Path, assets: Assets, runner: Runner) -> Path:
    """Fills the folder from which images are built."""
    folder.mkdir()
    for name in _CONTEXT:
        shutil.copy(_FILES / name, folder / name)
    for path in (*assets.paths.values(), BUSYBOX):
        shutil.copy(path, folder / path.name)
    compile_pause(folder / "pause", runner)
    return folder


def _build_base(module: Path, context: Path, runner: Runner) -> str:
    stage, base = f"{_STAGES}-base:stage", f"{_STAGES}-base:{KIND.version}"
    runner(build_image(module / "images/base", stage, target="base", BASE_IMAGE=BASE_IMAGE), timeout=900)
    runner(build_image(context, base, target="node-base"), timeout=600)
    return base


def _build_images(context: Path, images: Mapping[str, str], runner: Runner) -> list[str]:
    targets: dict[str, list[str]] = {}
    for name, target in images.items():
        targets.setdefault(target, []).append(name)
    for target, names in targets.items():
        runner(build_image(context, *names, target=target), timeout=600)
    return list(images)


def qualified(repositories: Mapping[str, object]) -> dict[str, object]:
    """Returns the repositories with the registry in each name, as kind compares them: Docker leaves its own out."""
    return {
        name if "." in name.partition("/")[0] or name.startswith("localhost/") else f"docker.io/{name}": tags
        for name, tags in repositories.items()
    }


def server_archive(folder: Path, assets: Assets, images: Sequence[str], runner: Runner) -> Path:
    """Writes what a release of Kubernetes calls the server archive, with all images in the first of its four archives.

    kind takes the names of images from the first entry "repositories" or "manifest.json"; of the latter it reads only
    the first image.
    """
    saved, ordered, empty = folder / "saved.tar", folder / "images.tar", folder / "none.tar"
    runner(save_image(saved, *images), timeout=300)
    with tarfile.open(saved) as source, tarfile.open(ordered, "w") as target:
        content = json.dumps(qualified(json.load(source.extractfile("repositories") or io.BytesIO()))).encode()
        names = tarfile.TarInfo("repositories")
        names.size = len(content)
        target.addfile(names, io.BytesIO(content))
        for member in source.getmembers():
            if member.name != "repositories":
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
    saved.unlink()
    runner(save_image(empty, images[-1]), timeout=300)
    output = folder / "server.tar.gz"
    with gzip.open(output, "wb", compresslevel=0) as packed, tarfile.open(fileobj=packed, mode="w") as server:
        version = folder / "version"
        version.write_text(KUBERNETES.version)
        server.add(version, "kubernetes/version")
        for binary in ("kubeadm", "kubelet", "kubectl"):
            server.add(assets[binary], f"{_SERVER}/{binary}")
        for name in _ARCHIVES:
            server.add(ordered if name == _ARCHIVES[0] else empty, f"{_SERVER}/{name}.tar")
    return output
