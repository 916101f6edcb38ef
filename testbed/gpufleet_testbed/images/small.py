"""The small images: the pause container of every pod, and busybox for workloads of tests and demo."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.images.oci import ImageConfig, make_layer, write_archive
from gpufleet_testbed.images.users import PATH, write_users
from gpufleet_testbed.versions import BUSYBOX_IMAGE, PAUSE_IMAGE

_PAUSE_SOURCE = Path(__file__).with_name("pause.c")
BUSYBOX = Path("/bin/busybox")


def compile_pause(output: Path, runner: Runner = run) -> None:
    """Compiles the program of the pause container."""
    runner(["gcc", "-Os", "-static", "-s", "-Wall", "-Werror", "-o", str(output), str(_PAUSE_SOURCE)])


def pause_archive(cache: Path, runner: Runner = run) -> Path:
    """Returns the OCI archive of the pause image."""

    def fill(root: Path) -> None:
        compile_pause(root / "pause", runner)

    config = ImageConfig(command=("/pause",), user="65532:65532")
    return _cached(cache, PAUSE_IMAGE, _PAUSE_SOURCE.read_bytes(), fill, config)


def busybox_archive(cache: Path, runner: Runner = run) -> Path:
    """Returns the OCI archive of the busybox image: one static binary with links for all its commands."""

    def fill(root: Path) -> None:
        install_busybox(root, root / "bin", runner)
        write_users(root)

    config = ImageConfig(command=("/bin/sh",), env={"PATH": PATH})
    return _cached(cache, BUSYBOX_IMAGE, BUSYBOX.read_bytes(), fill, config)


def install_busybox(root: Path, folder: Path, runner: Runner = run) -> None:
    """Copies this machine's static busybox to `root`/bin, and links its commands in `folder` unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for applet in runner([str(BUSYBOX), "--list"]).stdout.split():
        target = folder / applet
        if not target.exists() and not target.is_symlink():
            target.symlink_to("/bin/busybox")


def _cached(cache: Path, image: str, content: bytes, fill: Callable[[Path], None], config: ImageConfig) -> Path:
    recipe = b"".join(Path(__file__).with_name(part).read_bytes() for part in ("small.py", "oci.py", "users.py"))
    key = hashlib.sha256(content + recipe).hexdigest()[:10]
    folder = cache / "images"
    output = folder / f"{image.partition('/')[2].partition(':')[0]}-{key}.tar"
    if not output.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            fill(root)
            layer = make_layer(root, Path(scratch) / "layer.tar")
            write_archive(output, image, [layer], config)
    return output
