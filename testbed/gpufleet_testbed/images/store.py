"""A containerd store with the initial images of every node, created once and shared by all nodes.

Importing the large layers takes about 9 s per node, most of it disk I/O; they change only with uv.lock. A node gets a
copy of the databases, hard links to the blobs, and the unpacked layers as read-only mounts, because nothing writes to
them in place.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.progress import Progress

_STORE = "containerd"
_MAX_STORES = 2
SNAPSHOTS = "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
MOUNT_LAYERS = f"""\
for layer in "$1"/image-store/{SNAPSHOTS}/*; do
  mount -o bind,ro "$layer" "/var/lib/{SNAPSHOTS}/${{layer##*/}}"
done
"""
"""Shell lines for the boot of a node: "$1" is its folder, and its /var/lib is mounted."""
_IMPORT = """\
export PATH="$1:$PATH"
mount -t tmpfs tmpfs /run
mount --bind "$2" /var/lib
shift 2
printf '%s\\n' "version = 3" "[plugins.'io.containerd.internal.v1.opt']" "path = '/run/opt'" > /run/containerd.toml
containerd --config /run/containerd.toml > /run/containerd.log 2>&1 &
containerd=$!
until [ -S /run/containerd/containerd.sock ]; do
  kill -0 $containerd || { cat /run/containerd.log >&2; exit 1; }
  sleep 0.02
done
for archive; do ctr --namespace k8s.io images import --local "$archive"; done
kill $containerd
wait $containerd
"""


def prepare_store(
    cache: Path,
    assets: Assets,
    key: Sequence[str],
    archives: Callable[[], Sequence[Path]],
    *,
    progress: Progress,
    runner: Runner = run,
) -> Path:
    """Creates the store with some images, or returns it from the cache.

    Args:
        cache: The cache folder.
        assets: Paths of containerd and ctr.
        key: Identifies the content of the images.
        archives: Writes the archives; called only when they are needed.
        progress: Where the step is shown.
        runner: Runs programs.

    Returns:
        A folder for `copy_store`.
    """
    recipe = [assets["containerd"], _IMPORT, *key]
    folder = cache / "image-stores" / hashlib.sha256(repr(recipe).encode()).hexdigest()[:10]
    if not folder.exists():
        with progress.step("image: unpacking the large layers for the nodes"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
                store = Path(scratch) / "store"
                store.mkdir()
                binaries = str(Path(assets["containerd"]).parent)
                script = ["sh", "-ec", _IMPORT, "sh", binaries, str(store), *map(str, archives())]
                namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
                runner([*namespaces, *script], timeout=300)
                store.rename(folder)
    return folder


def prune(current: Path, cache: Path) -> None:
    """Removes old stores, except those that a cluster uses. Several processes may do so at the same time."""
    current.touch()
    used = {link.resolve() for link in cache.glob("cluster*/nodes/*/image-store")}
    ages: dict[Path, float] = {}
    for store in current.parent.glob("[!.]*"):
        with suppress(FileNotFoundError):  # another process has removed it
            ages[store] = store.stat().st_mtime
    for old in sorted(ages, key=lambda store: ages[store], reverse=True)[_MAX_STORES:]:
        if old not in used:
            _remove(old)


def _remove(store: Path) -> None:
    """Moves it away first: another process neither fails at a half of it nor uses it."""
    with tempfile.TemporaryDirectory(dir=store.parent, prefix=".removed-") as scratch, suppress(FileNotFoundError):
        store.rename(Path(scratch) / store.name)


def copy_store(store: Path, node: Path) -> None:
    """Gives a node the images of a store before its first boot; `MOUNT_LAYERS` mounts the layers at each boot."""
    target = node / "var-lib" / _STORE

    def all_layers(folder: str, names: list[str]) -> list[str]:
        return names if Path(folder) == store / SNAPSHOTS else []

    def link_or_copy(source: str, copy: str) -> None:
        if source.endswith(".db"):
            shutil.copy2(source, copy)
        else:
            os.link(source, copy)

    shutil.copytree(store / _STORE, target, ignore=all_layers, copy_function=link_or_copy)
    for layer in (store / SNAPSHOTS).iterdir():
        (node / "var-lib" / SNAPSHOTS / layer.name).mkdir()
    (node / "image-store").symlink_to(store)
