"""The base layer of the project's image: Debian's Python with its libraries, and busybox as the shell.

The packages come from the mirror that this machine's apt uses, with apt's dependency resolution against an empty system
and its signature checks. They are unpacked and not installed, because their scripts are not needed.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.images.oci import Layer, load_layer, make_layer
from gpufleet_testbed.images.small import install_busybox
from gpufleet_testbed.images.users import write_users
from gpufleet_testbed.progress import Progress

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "media-types")
_NOT_UNPACKED = ("dpkg_", "tar_", "gcc-", "perl-base_", "readline-common_")
"""Packages that only package scripts need."""
_REMOVED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/doc-base",
    "usr/share/binfmts",
    "usr/share/python3",
    "usr/lib/python3.*/lib2to3",
    "usr/lib/python3.*/pydoc_data",
    "usr/lib/*-linux-gnu/gconv",
    "var",
)
_MERGED = ("bin", "sbin", "lib", "lib64")
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Base:
    """The base layer, and the folder from which it was created."""

    layer: Layer
    root: Path
    """A complete file system with Python, in which the bytecode of the other layers is compiled."""
    python: str
    """Python's version, like `3.11`."""


def build_base(cache: Path, progress: Progress, runner: Runner = run) -> Base:
    """Builds the base layer for this machine's Debian or Ubuntu release, or returns it from the cache.

    Raises:
        ClusterError: apt failed, or the release's Python is too old.
    """
    folder = cache / "images" / f"base-{_key()}"
    if not (folder / "layer.tar").exists():
        with progress.step("image: base layer (Debian's Python)"):
            shutil.rmtree(folder, ignore_errors=True)
            root = folder / "root"
            root.mkdir(parents=True)
            _download(folder, runner)
            _unpack(folder, root)
            _finish(root, runner)
            make_layer(root, folder / "layer.tar")
    layer = load_layer(folder / "layer.tar")
    if layer is None:
        raise ClusterError(f"{folder} was removed while it was in use")
    return Base(layer, folder / "root", _python(folder / "root"))


def compile_bytecode(root: Path, folder: Path, runner: Runner = run) -> None:
    """Compiles Python files with the Python of `root`, without timestamps in the result.

    Args:
        root: Base file system.
        folder: The future "/" of the container; every Python file below it is compiled.
        runner: Runs programs.
    """
    inside = root / "mnt"
    inside.mkdir(exist_ok=True)
    script = (
        'mount --bind "$2" "$1/mnt" && '
        'exec chroot "$1" python3 -I -m compileall -q -f --invalidation-mode unchecked-hash -s /mnt -p / /mnt'
    )
    runner(["unshare", "--mount", "sh", "-ec", script, "sh", str(root), str(folder)], timeout=600)


def _key() -> str:
    release = Path("/etc/os-release").read_text()
    identity = re.findall(r'^(?:ID|VERSION_ID)="?([^"\n]+)', release, re.MULTILINE)
    recipe = b"".join(Path(__file__).with_name(part).read_bytes() for part in ("base.py", "oci.py", "users.py"))
    return hashlib.sha256(repr((sorted(identity), platform.machine())).encode() + recipe).hexdigest()[:10]


def _download(folder: Path, runner: Runner) -> None:
    archives = folder / "packages"
    (archives / "partial").mkdir(parents=True)
    empty = folder / "installed-packages"
    empty.write_text("")
    options = [
        f"Dir::State::status={empty}",
        f"Dir::Cache::archives={archives}",
        "APT::Sandbox::User=root",
        "APT::Install-Recommends=false",
        "Debug::NoLocking=1",
    ]
    command = ["apt-get", "--yes", "--download-only", *(f"--option={option}" for option in options), "install"]
    got = runner([*command, *_PACKAGES], timeout=600, check=False)
    if got.returncode != 0:
        # Package lists may be missing in fresh containers, or be older than the mirror.
        runner(["apt-get", "update"], timeout=600)
        runner([*command, *_PACKAGES], timeout=600)


def _unpack(folder: Path, root: Path) -> None:
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted((folder / "packages").glob("*.deb")):
        if package.name.startswith(_NOT_UNPACKED):
            continue
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as source:
            subprocess.run(
                ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", str(root)],
                stdin=source.stdout,
                check=True,
            )
        if source.returncode != 0:
            raise ClusterError(f"dpkg-deb cannot read {package}")
    shutil.rmtree(folder / "packages")


def _finish(root: Path, runner: Runner) -> None:
    for pattern in _REMOVED:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    version = _python(root)
    if tuple(map(int, version.split("."))) < _OLDEST_PYTHON:
        raise ClusterError(
            f"this release has Python {version}, but gpufleet needs 3.11: use Debian 12, Ubuntu 24.04 or newer"
        )
    for name in ("dev", "proc", "sys", "run", "var", "root", "mnt", "opt", "usr/local/bin"):
        (root / name).mkdir(exist_ok=True, parents=True)
    (root / "var" / "run").symlink_to("../run")
    install_busybox(root, root / "usr" / "bin", runner)
    write_users(root)
    compile_bytecode(root, root, runner)


def _python(root: Path) -> str:
    found = sorted(path.name for path in (root / "usr" / "bin").glob("python3.[0-9]*") if not path.is_symlink())
    if not found or not os.access(root / "usr" / "bin" / found[0], os.X_OK):
        raise ClusterError(f"no Python in {root}")
    return found[0].removeprefix("python")
