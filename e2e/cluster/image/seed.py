"""A containerd store with the images that every node starts with, made once and hard-linked into each node.

Importing the large layers takes some 9 s for each node, most of it waiting for the disk. They change only with uv.lock.
Linked files are safe: nothing ever writes to a committed snapshot or a blob in place; the databases are copied.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.assets import Assets
from cluster.command import Runner, run
from cluster.progress import Progress

_STORE = "containerd"
_KEPT = 2
_IMPORT = """\
export PATH="$1:$PATH"
mount -t tmpfs tmpfs /run
mount --bind "$2" /var/lib
shift 2
containerd --config /dev/null > /run/containerd.log 2>&1 &
containerd=$!
until [ -S /run/containerd/containerd.sock ]; do
  kill -0 $containerd || { cat /run/containerd.log >&2; exit 1; }
  sleep 0.02
done
for archive; do ctr --namespace k8s.io images import --local "$archive"; done
kill $containerd
wait $containerd
"""


def seed_store(
    cache: Path,
    assets: Assets,
    key: Sequence[str],
    archives: Callable[[], Sequence[Path]],
    *,
    progress: Progress,
    runner: Runner = run,
) -> Path:
    """The store with certain images in it, made when the cache lacks it.

    Args:
        cache: cache folder.
        assets: containerd and ctr.
        key: what identifies the images' content.
        archives: writes the archives; called only when they are needed.
        progress: where the step is shown.
        runner: how programs are run.

    Returns:
        A folder to pass to `plant`.
    """
    recipe = [assets["containerd"], _IMPORT, *key]
    folder = cache / "seeds" / hashlib.sha256(repr(recipe).encode()).hexdigest()[:10]
    if not folder.exists():
        with progress.step("image: unpacking the large layers for the nodes"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                store = Path(scratch) / "store"
                store.mkdir()
                binaries = str(Path(assets["containerd"]).parent)
                script = ["sh", "-ec", _IMPORT, "sh", binaries, str(store), *map(str, archives())]
                namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
                runner([*namespaces, *script], timeout=300)
                store.rename(folder)
    folder.touch()
    by_age = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[_KEPT:]:
        shutil.rmtree(old)
    return folder


def plant(seed: Path, var_lib: Path, runner: Runner = run) -> None:
    """Give a node the images of a seed, before its containerd starts for the first time."""
    runner(["cp", "--archive", "--link", str(seed / _STORE), str(var_lib)])
    for database in var_lib.joinpath(_STORE).rglob("*.db"):
        own = database.with_suffix(".copy")
        shutil.copy2(database, own)
        own.replace(database)
