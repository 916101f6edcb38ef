"""Starts a local cluster; steps overlap. On any failure the lifeline is closed, and the monitor cleans up."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.images.store import copy_store
from gpufleet_testbed.local.api import ApiClient
from gpufleet_testbed.local.layout import Layout, NodeLayout, cgroup_name
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.processes.lock import Lock
from gpufleet_testbed.local.processes.monitor import DETACH
from gpufleet_testbed.local.processes.supervisor_client import tail
from gpufleet_testbed.local.setup import command_lines, network
from gpufleet_testbed.local.setup.config_files import (
    cni_config,
    containerd_config,
    corefile,
    kubeconfig,
    kubelet_config,
)
from gpufleet_testbed.local.setup.pki import certificates, make_pki
from gpufleet_testbed.local.teardown import read_processes
from gpufleet_testbed.local.units import CONTROL_PLANE, Units
from gpufleet_testbed.versions import KUBERNETES_RELEASES
from gpufleet_testbed.waiting import wait_until

_START_SECONDS = 90.0


@dataclass
class Lifeline:
    """The caller's end of a pipe; the cluster ends when it is closed."""

    descriptor: int
    monitor: subprocess.Popen[bytes]

    def detach(self) -> None:
        """Detaches the cluster from this process."""
        os.write(self.descriptor, DETACH)
        os.close(self.descriptor)
        self.monitor.returncode = 0  # this process no longer waits for it

    def cut(self, timeout: float = 60) -> int:
        """Ends the cluster and waits for the cleanup; returns the monitor's exit status."""
        os.close(self.descriptor)
        return self.monitor.wait(timeout)


@dataclass(frozen=True)
class NodeImages:
    """The initial images of every node."""

    store: Path
    """A containerd store, see `gpufleet_testbed.images.store`."""
    archives: tuple[Path, ...]
    """Imported into it on each node."""


def start(units: Units, images: NodeImages, lock: Lock) -> Lifeline:
    """Starts everything; returns when all nodes are ready and have the images.

    Raises:
        ClusterError: Something did not start; nothing is left running.
    """
    layout = units.layout
    layout.root.mkdir(mode=0o700, parents=True)
    _make_folders(layout)
    lifeline = _start_monitor(layout, lock)
    try:
        with ThreadPoolExecutor() as pool:
            try:
                _start_all(units, images, lifeline, pool)
            except BaseException:  # KeyboardInterrupt included: no part of the cluster may stay
                # Inside the pool's block, because its threads wait for parts of the cluster.
                lifeline.cut()
                raise
    except BaseException:
        _remove_rest(layout, lock.path)
        raise
    return lifeline


def _remove_rest(layout: Layout, lock_path: Path) -> None:
    """Removes what a thread created after the monitor had cleaned up, such as the cgroup of a node that it booted."""
    lock = Lock.try_acquire(lock_path)
    if lock is None:
        return  # another process starts the cluster, and has removed the rest
    cgroups.remove(cgroups.all_hierarchies(), cgroup_name(layout.root))
    shutil.rmtree(layout.root, ignore_errors=True)
    lock.remove()


def _make_folders(layout: Layout) -> None:
    layout.logs.mkdir()
    (layout.root / "kubeconfig").mkdir()
    for node in layout.node_layouts:
        for name in ("var-lib", "var-log", "driver", "cni", "opt", "sysctl"):
            (node.folder / name).mkdir(parents=True)
        for name, value in command_lines.KUBELET_SYSCTLS.items():
            (node.folder / "sysctl" / name.replace("/", "_")).write_text(f"{value}\n")


def _start_monitor(layout: Layout, lock: Lock) -> Lifeline:
    read_end, write_end = os.pipe()
    joined = cgroups.create(cgroups.hierarchies(), layout.control_plane_cgroup)
    arguments = [
        f"--root={layout.root}",
        f"--name={layout.name}",
        f"--lifeline={read_end}",
        f"--lock={lock.descriptor}",
    ]
    with (layout.logs / "monitor.log").open("wb") as log:
        monitor = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gpufleet_testbed.local.processes.monitor",
                *arguments,
                "--",
                *command_lines.namespace(layout, joined),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(read_end, lock.descriptor),
            start_new_session=True,
        )
    os.close(read_end)
    lock.close()  # the monitor has a copy
    return Lifeline(write_end, monitor)


def _start_all(units: Units, images: NodeImages, lifeline: Lifeline, pool: Executor) -> None:
    layout, monitor = units.layout, lifeline.monitor

    def monitor_runs() -> None:
        if monitor.poll() is not None:
            raise ClusterError(f"the monitor ended: {tail(layout.logs / 'monitor.log')}")

    configured = pool.submit(_configure, units)
    wait_until(layout.control.is_socket, "the cluster's namespaces exist", monitor_runs, timeout=_START_SECONDS)
    processes = read_processes(layout.root)
    if processes is None:
        raise ClusterError("the monitor recorded no processes")
    network.connect(layout, processes.namespace.pid)
    units.start("etcd", command_lines.etcd(layout, units.assets))
    configured.result()
    audit = layout.root / "audit-policy.yaml" if units.config.audit_policy else None
    units.start("apiserver", command_lines.apiserver(layout, units.assets, audit))
    booted = {node: pool.submit(_boot, units, node, images.store) for node in layout.node_layouts}
    loaded = [pool.submit(_load, units, node, boot, images.archives) for node, boot in booted.items()]
    units.await_apiserver()
    units.start("controller-manager", command_lines.controller_manager(layout, units.assets))
    units.start("dns", command_lines.dns(layout, units.assets))
    units.start("scheduler", command_lines.scheduler(layout, units.assets))
    for node, boot in booted.items():
        boot.result()
        units.start_kubelet(node)
    units.start("proxy", command_lines.proxy(layout, units.assets))
    _await_nodes(units)
    for load in loaded:
        load.result()


def _boot(units: Units, node: NodeLayout, store: Path) -> None:
    copy_store(store, node.folder)
    units.boot(node)


def _load(units: Units, node: NodeLayout, boot: Future[None], images: Sequence[Path]) -> None:
    boot.result()
    for image in images:
        units.load_image(node, image)


def _configure(units: Units) -> None:
    layout = units.layout
    make_pki(layout)
    authority = (layout.pki / "ca.crt").read_bytes()
    for certificate in certificates(layout):
        pair = [(layout.pki / f"{certificate.name}.{kind}").read_bytes() for kind in ("crt", "key")]
        path = layout.component_kubeconfig(certificate.name)
        path.touch(mode=0o600)
        path.write_text(kubeconfig(layout.server, authority, *pair))
    layout.corefile.write_text(corefile(layout))
    gates = KUBERNETES_RELEASES[units.config.kubernetes].kubelet_feature_gates
    for node in layout.node_layouts:
        node.kubelet_config.write_text(kubelet_config(layout, node, units.config.node_status_seconds, gates))
        node.containerd_config.write_text(containerd_config(node))
        (node.cni / "10-gpufleet.conflist").write_text(cni_config(node))
    if units.config.audit_policy:
        (layout.root / "audit-policy.yaml").write_text(units.config.audit_policy)


def _await_nodes(units: Units) -> None:
    layout, api = units.layout, ApiClient(units.layout)
    wanted = {node.name for node in layout.node_layouts}
    running = (*CONTROL_PLANE, "controller-manager", "scheduler", "dns", "proxy", *wanted)
    wait_until(
        lambda: api.ready_nodes() >= wanted and api.has_default_account,
        f"{', '.join(sorted(wanted))} are ready; the kubelets' logs are in {layout.logs}",
        lambda: units.require(*running),
        timeout=_START_SECONDS,
    )
