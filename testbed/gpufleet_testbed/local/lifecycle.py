"""Starts and stops the local cluster: one per name, taken over if it matches, cleaned up if it is dead."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_testbed.binaries.assets import Assets, PendingAssets, prepare_assets
from gpufleet_testbed.config import DEFAULT_NAME, ClusterConfig, Provider, down_command
from gpufleet_testbed.errors import ConflictError, NotRunningError
from gpufleet_testbed.host.file_lock import locked
from gpufleet_testbed.images.project import LOWER_IMAGE, build_layers
from gpufleet_testbed.images.small import busybox_archive, pause_archive
from gpufleet_testbed.images.store import prepare_store, prune
from gpufleet_testbed.local.api import ApiClient
from gpufleet_testbed.local.cluster import LocalCluster
from gpufleet_testbed.local.layout import Layout, lock_file
from gpufleet_testbed.local.processes import lock as locks
from gpufleet_testbed.local.processes.lock import Lock
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.processes.supervisor_client import SupervisorClient
from gpufleet_testbed.local.setup.preflight import prepare_host
from gpufleet_testbed.local.start import NodeImages, start
from gpufleet_testbed.local.state import State, differences
from gpufleet_testbed.local.teardown import read_processes, tear_down
from gpufleet_testbed.local.units import Units
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.status import Status
from gpufleet_testbed.versions import BUSYBOX_IMAGE, HELM, LOCAL_TOOLS, PAUSE_IMAGE, local_tools

_OTHERS_SECONDS = 180.0
"""How long to wait for a cluster that another process is starting or stopping."""
_STORE_BINARIES = ("containerd", "ctr")
_NODE_BINARIES = tuple(name for tool in LOCAL_TOOLS if tool is not HELM for name, _ in tool.commands)
"""What a cluster needs to start; helm may still be built meanwhile."""


class LocalLifecycle:
    """The local cluster of one name in a cache folder."""

    def __init__(self, cache: Path, progress: Progress, name: str = DEFAULT_NAME) -> None:
        self._cache = cache
        self._progress = progress
        self._name = name
        self._root = cache / ("cluster" if name == DEFAULT_NAME else f"cluster-{name}")
        self._lock_file = lock_file(self._root)
        self._error_file = self._root.with_suffix(".error")

    def up(self, config: ClusterConfig, *, detach: bool) -> LocalCluster:
        """Starts the cluster, or takes over the one that runs; see `gpufleet_testbed.up`."""
        running = self._running() is not None
        prepare_host(config, self._root, self._progress, network_free=not running)
        with prepare_assets(self._cache, self._progress, tools=local_tools(config.kubernetes)) as pending:
            images = self._node_images(config, pending)
            pending.wait(*_NODE_BINARIES)
            deadline = time.monotonic() + _OTHERS_SECONDS
            while True:
                state = self._running()
                if state is not None:
                    return self._take_over(state, config, pending.assets, images[1])
                lock = Lock.try_acquire(self._lock_file)
                if lock is not None:
                    return self._start(lock, config, pending, images, detach=detach)
                if time.monotonic() > deadline:
                    holder = locks.holder(self._lock_file)
                    raise ConflictError(f"{holder} has been starting or stopping a cluster for {_OTHERS_SECONDS:g} s")
                time.sleep(0.1)

    def _node_images(self, config: ClusterConfig, pending: PendingAssets) -> tuple[NodeImages, dict[str, Path]]:
        """Builds what nodes start with: the image store with its archives, and the archive of each image by name."""
        with locked(self._cache / "images"):
            return self._build_images(config, pending)

    def _build_images(self, config: ClusterConfig, pending: PendingAssets) -> tuple[NodeImages, dict[str, Path]]:
        assets = pending.assets
        small = {PAUSE_IMAGE: pause_archive(self._cache), BUSYBOX_IMAGE: busybox_archive(self._cache)}
        key = [path.name for path in small.values()]
        if not config.project_image:
            pending.wait(*_STORE_BINARIES)
            store = prepare_store(self._cache, assets, key, lambda: list(small.values()), progress=self._progress)
            return NodeImages(store, ()), small
        image = build_layers(self._cache, self._progress)
        key += [layer.digest for layer in image.lower]
        pending.wait(*_STORE_BINARIES)
        store = prepare_store(
            self._cache, assets, key, lambda: [*small.values(), image.lower_archive()], progress=self._progress
        )
        running = self._running()
        if running is not None and running.images.get(LOWER_IMAGE) != str(image.lower_path):
            # Its nodes have other lower layers than the archive of the upper ones expects.
            image.lower_archive()
        upper = image.upper_archive()
        return NodeImages(store, (upper,)), {**small, LOWER_IMAGE: image.lower_path, image.name: upper}

    def build(self, config: ClusterConfig) -> None:
        """Builds everything that `up` needs, without starting anything."""
        prepare_host(config, self._root, self._progress, network_free=False)
        with prepare_assets(self._cache, self._progress, tools=local_tools(config.kubernetes)) as pending:
            self._node_images(config, pending)

    def attach(self) -> LocalCluster:
        """Returns a handle of the running cluster.

        Raises:
            NotRunningError: It does not run.
        """
        state = self._running()
        if state is None:
            raise NotRunningError("no cluster is running; start one with `make cluster`")
        assets = Assets({name: Path(path) for name, path in state.binaries.items()})
        return LocalCluster(self._units(state.config, assets), self.down)

    def down(self) -> None:
        """Stops the cluster, dead or alive, and removes everything that it created.

        Raises:
            ConflictError: Another process is starting one.
            ClusterError: Something could not be removed.
        """
        lock = Lock.try_acquire(self._lock_file)
        if lock is None:
            processes = read_processes(self._root)
            if processes is not None:
                processes.monitor.end(signal.SIGTERM, timeout=60)
            lock = self._await_lock()
        try:
            self._clean()
        except BaseException:  # Ctrl-C as well: the lock file stays with what is left of the cluster
            lock.close()
            raise
        lock.remove()

    def status(self) -> Status | None:
        """Returns the state of the running cluster; None when it does not run."""
        state = self._running()
        if state is None:
            return None
        layout = self._layout(state.config)
        ready = ApiClient(layout).ready_nodes()
        parts = dict(SupervisorClient(layout.control).units())
        for node in layout.node_layouts:
            if node.name in parts and parts[node.name].exit is None:
                inner = SupervisorClient(node.control).units()
                parts |= {f"{node.name}/{name}": unit for name, unit in inner.items()}
        return Status(
            provider=Provider.LOCAL,
            kubernetes=state.config.kubernetes,
            nodes={node.name: node.name in ready for node in layout.node_layouts},
            components={n: "running" if u.exit is None else f"ended with status {u.exit}" for n, u in parts.items()},
            kubeconfig=layout.kubeconfig,
            log_dir=layout.logs,
            owner=state.owner.pid if state.owner else None,
            started=state.started,
        )

    def _start(
        self,
        lock: Lock,
        config: ClusterConfig,
        pending: PendingAssets,
        images: tuple[NodeImages, Mapping[str, Path]],
        *,
        detach: bool,
    ) -> LocalCluster:
        self._clean()
        prune(images[0].store, self._cache)
        assets = pending.assets
        units = self._units(config, assets)
        with self._progress.step(f"starting {config.nodes} nodes and the control plane"):
            lifeline = start(units, images[0], lock)
        try:
            pending.wait()
        except BaseException:  # KeyboardInterrupt included: a cluster without its tools must not stay
            lifeline.cut()
            raise
        State(
            config=config,
            binaries={name: str(path) for name, path in assets.paths.items()},
            images={name: str(path) for name, path in images[1].items()},
            owner=ProcessId.of(os.getpid()),
            started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ).write(units.layout)
        cluster = LocalCluster(units, self.down, lifeline)
        if detach:
            cluster.release()
        return cluster

    def _take_over(
        self, state: State, config: ClusterConfig, assets: Assets, images: Mapping[str, Path]
    ) -> LocalCluster:
        differing = differences(config, {name: str(path) for name, path in assets.paths.items()}, state)
        if differing:
            raise ConflictError(
                f"a different cluster is running: {'; '.join(differing)}. "
                f"Stop it with `{down_command(self._name)}`, or request a matching one"
            )
        owner = f" (it ends with process {state.owner.pid})" if state.owner else ""
        self._progress.say(f"          taking over the cluster that has run since {state.started}{owner}")
        cluster = LocalCluster(self._units(state.config, assets), self.down)
        stale = {name: path for name, path in images.items() if state.images.get(name) != str(path)}
        for name, archive in stale.items():
            with self._progress.step(f"loading {name}"):
                cluster.load_image(archive)
        if stale:
            images_now = {**state.images, **{name: str(path) for name, path in stale.items()}}
            replace(state, images=images_now).write(self._layout(state.config))
        return cluster

    def _running(self) -> State | None:
        state = State.read(self._root / "state.json")
        processes = read_processes(self._root)
        return state if processes is not None and processes.namespace.alive else None

    def _clean(self) -> None:
        if self._root.exists():
            with self._progress.step("removing the remains of a cluster"):
                tear_down(self._root, self._name)
        if self._error_file.exists():
            self._progress.say(f"the last cluster was not removed completely:\n{self._error_file.read_text()}")
            self._error_file.unlink()

    def _await_lock(self) -> Lock:
        deadline = time.monotonic() + _OTHERS_SECONDS / 6
        while True:
            lock = Lock.try_acquire(self._lock_file)
            if lock is not None:
                return lock
            if time.monotonic() > deadline:
                raise ConflictError(f"{locks.holder(self._lock_file)} is starting or stopping a cluster; try again")
            time.sleep(0.02)

    def _layout(self, config: ClusterConfig) -> Layout:
        return Layout(self._root, self._name, config.network_address, config.nodes)

    def _units(self, config: ClusterConfig, assets: Assets) -> Units:
        return Units(self._layout(config), config, assets)
