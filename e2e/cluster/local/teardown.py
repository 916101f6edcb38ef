"""Puts this machine back as it was before a local cluster: works after any end, also of a cluster that was killed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.local import cgroups, network
from cluster.local.identity import ProcessId
from cluster.local.layout import DRIVER_MOUNT

PROCESSES = "processes.json"
RESTORE = "restore.json"
_SYSCTL = Path("/proc/sys")
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Settings of the whole machine that a kubelet changes when it starts."""


@dataclass(frozen=True)
class Processes:
    """The two processes of a cluster outside its namespaces."""

    keeper: ProcessId
    """Ends the cluster and cleans up."""
    namespace: ProcessId
    """The `unshare` process; its end is the end of every process of the cluster."""


def write_processes(root: Path, processes: Processes) -> None:
    """Record them."""
    _write(root / PROCESSES, asdict(processes))


def read_processes(root: Path) -> Processes | None:
    """Those of the cluster in this folder, dead or alive; None when it never got that far."""
    try:
        content = json.loads((root / PROCESSES).read_text())
    except FileNotFoundError:
        return None
    return Processes(**{name: ProcessId(**fields) for name, fields in content.items()})


def remember_host(root: Path) -> None:
    """Record what the cluster is about to change on this machine, then make the mount point that nodes need."""
    missing = [path for path in (DRIVER_MOUNT, *DRIVER_MOUNT.parents) if not path.exists()]
    sysctls = {name: (_SYSCTL / name).read_text().strip() for name in KUBELET_SYSCTLS if (_SYSCTL / name).exists()}
    _write(root / RESTORE, {"sysctls": sysctls, "folders": [str(path) for path in missing]})
    DRIVER_MOUNT.mkdir(parents=True, exist_ok=True)


def tear_down(root: Path) -> None:
    """End every process of the cluster in `root` and undo what it did to this machine; may be repeated.

    Raises:
        ClusterError: something could not be removed; the message names it.
    """
    tree = cgroups.all_hierarchies()
    processes = read_processes(root)
    if processes is not None:
        # Frozen v1 processes don't even die: thaw the nodes first.
        cgroups.thaw_all(tree)
        processes.namespace.end()
    cgroups.remove(tree)
    network.disconnect(str(root))
    with suppress(FileNotFoundError):
        _restore(**json.loads((root / RESTORE).read_text()))
    shutil.rmtree(root, ignore_errors=False)


def _restore(sysctls: Mapping[str, str], folders: Sequence[str]) -> None:
    for name, value in sysctls.items():
        path = _SYSCTL / name
        if path.read_text().strip() != value:
            path.write_text(value)
    for folder in folders:
        with suppress(OSError):  # somebody else uses it meanwhile, or it is gone
            Path(folder).rmdir()


def _write(path: Path, content: object) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.rename(path)
