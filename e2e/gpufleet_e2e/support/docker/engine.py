"""Debian's Docker Engine, unpacked into the cache and run in namespaces of its own: nothing is installed or left.

No registry of images is needed: the base image is made by debootstrap from the mirror that this machine's apt uses.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gpufleet_e2e.support.docker import bounded_runc
from gpufleet_e2e.support.programs.debian_packages import download
from gpufleet_testbed import cache_dir, repository_root, wait_until
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import run, search_path
from gpufleet_testbed.host.file_lock import locked

BASE = "debian:bookworm-slim"
_PACKAGES = ("docker.io", "containerd", "runc", "libdevmapper1.02.1", "libseccomp2", "debootstrap")
_CGROUP_PARENT = "gpufleet-docker"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Certificates that this machine trusts in addition to Debian's: a build reaches its mirrors through the same proxy."""


@dataclass(frozen=True)
class DockerEngine:
    """A running engine."""

    client: Path
    socket: Path

    def __call__(self, *args: str, timeout: float = 60) -> str:
        """Runs a command of the client and returns its output. Raises ClusterError if it fails."""
        return run([str(self.client), *args], timeout=timeout, env=self.environment).stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which docker and kind use this engine."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_BUILDKIT": "1",
            "DOCKER_CONFIG": str(self.socket.parent),
            "PATH": search_path(str(self.client.parent)),
        }

    def build(self, target: str, tag: str, **arguments: str) -> None:
        """Builds a target of the repository's Dockerfile, with build arguments."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        where = ("--network=host", "--target", target, "--tag", tag, str(repository_root()))
        self("build", "--quiet", *given, *where, timeout=600)

    def run(self, image: str, *command: str) -> str:
        """Runs a container without network to its end and returns its output."""
        return self("run", "--rm", "--network=none", f"--cgroup-parent=/{_CGROUP_PARENT}", image, *command)

    def added_megabytes(self, image: str) -> float:
        """Returns the uncompressed size of an image's layers over its base, in units of 1,000,000 bytes."""
        size, base = (int(self("image", "inspect", "--format={{.Size}}", name)) for name in (image, BASE))
        return (size - base) / 1e6


@contextmanager
def docker_engine(folder: Path) -> Iterator[DockerEngine]:
    """Starts the engine with its data below a folder, and the base image in it; ends it with the block.

    Raises:
        ClusterError: A package cannot be downloaded, or the engine does not start.
    """
    cache = cache_dir() / "docker"
    with locked(cache):
        programs = _unpacked(cache)
        base = _base_image(cache, programs)
    engine = DockerEngine(programs / "usr/bin/docker", folder / "docker.sock")
    log = folder / "dockerd.log"
    command = [
        # Its mounts stay in its own namespace, and it ends with this process.
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL",
        str(programs / "usr/sbin/dockerd"),
        f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'pid'}",
        f"--host=unix://{engine.socket}", "--iptables=false", "--ip6tables=false", "--bridge=none",
        "--ip-forward=false", f"--cgroup-parent=/{_CGROUP_PARENT}", *_runtime(folder / "runc"),
    ]  # fmt: skip
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(programs))
    try:
        wait_until(engine.socket.is_socket, "dockerd listens", lambda: _require(daemon, log), timeout=60)
        engine("import", str(base), BASE, timeout=120)
        yield engine
    finally:
        with suppress(ClusterError, TimeoutError):  # it may have ended
            _remove_networks(engine)
        daemon.kill()
        daemon.wait()
        for group in Path("/sys/fs/cgroup").glob(f"**/{_CGROUP_PARENT}"):
            run(["find", str(group), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)


def _require(daemon: subprocess.Popen[bytes], log: Path) -> None:
    if daemon.poll() is not None:
        raise ClusterError(f"dockerd ended: {log.read_text()[-2000:]}")


def _runtime(launcher: Path) -> list[str]:
    """Returns the options for runc on this machine; writes a launcher if a privileged container cannot start."""
    if not bounded_runc.missing(Path("/proc/self/status").read_text()):
        return []
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -I {bounded_runc.__file__} "$@"\n')
    launcher.chmod(0o755)
    return [f"--add-runtime=bounded={launcher}", "--default-runtime=bounded"]


def _remove_networks(engine: DockerEngine) -> None:
    """Removes networks with their containers: a bridge is an interface of this machine, and outlives the engine."""
    if networks := engine("network", "ls", "--quiet", "--filter=type=custom").split():
        if containers := engine("ps", "--all", "--quiet").split():
            engine("rm", "--force", "--volumes", *containers, timeout=120)
        engine("network", "rm", *networks)


def _environment(programs: Path) -> dict[str, str]:
    paths = [str(programs / folder) for folder in ("usr/bin", "usr/sbin")]
    libraries = [str(path) for path in sorted((programs / "usr/lib").glob("*-linux-gnu"))]
    libraries += [str(path) for path in sorted((programs / "lib").glob("*-linux-gnu"))]
    return {
        **os.environ,
        "PATH": ":".join([*paths, os.environ["PATH"]]),
        "LD_LIBRARY_PATH": ":".join(libraries),
    }


def _unpacked(cache: Path) -> Path:
    """Returns a folder with the files of the packages, which is complete once it exists."""
    root = cache / "programs"
    if root.exists():
        return root
    scratch = cache / "programs.part"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "packages").mkdir(parents=True)
    for package in download(scratch / "packages", *_PACKAGES):
        run(["dpkg-deb", "--extract", str(package), str(scratch)], timeout=120)
    shutil.rmtree(scratch / "packages")
    scratch.rename(root)
    return root


def _base_image(cache: Path, programs: Path) -> Path:
    """Returns an archive of the file system of Debian bookworm's smallest variant."""
    archive = cache / "bookworm.tar"
    if archive.exists():
        return archive
    root = cache / "bookworm"
    shutil.rmtree(root, ignore_errors=True)
    environment = {"DEBOOTSTRAP_DIR": str(programs / "usr/share/debootstrap")}
    bootstrap = ["sh", str(programs / "usr/sbin/debootstrap"), "--variant=minbase", "--include=ca-certificates"]
    run(["unshare", "--mount", *bootstrap, "bookworm", str(root)], timeout=900, env=environment)
    if _CERTIFICATES.is_dir():
        shutil.copytree(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
        run(["chroot", str(root), "update-ca-certificates"], timeout=120)
    run(["tar", "--create", f"--file={archive}.part", f"--directory={root}", "."], timeout=300)
    Path(f"{archive}.part").rename(archive)
    shutil.rmtree(root)
    return archive
