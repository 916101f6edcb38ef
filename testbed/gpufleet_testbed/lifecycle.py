"""Starts, stops and finds clusters of the chosen provider."""

from typing import Protocol

from gpufleet_testbed.config import DEFAULT_NAME, ClusterConfig, Provider, cache_dir, check_name
from gpufleet_testbed.handles import Cluster
from gpufleet_testbed.kind.lifecycle import KindLifecycle
from gpufleet_testbed.local.lifecycle import LocalLifecycle
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.status import Status


class Lifecycle(Protocol):
    """Operations of a provider on the cluster of one name."""

    def up(self, config: ClusterConfig, *, detach: bool) -> Cluster:
        """Starts the cluster, or takes over the one that runs."""

    def build(self, config: ClusterConfig) -> None:
        """Builds everything that `up` needs, without starting anything."""

    def attach(self) -> Cluster:
        """Returns a handle of the running cluster."""

    def down(self) -> None:
        """Stops the cluster and removes everything that it created."""

    def status(self) -> Status | None:
        """Returns the state of the running cluster; None when it does not run."""


def up(config: ClusterConfig | None = None, *, detach: bool = False, progress: Progress | None = None) -> Cluster:
    """Starts a cluster, or takes over a running one that matches.

    Args:
        config: The cluster; default `ClusterConfig.from_environment()`.
        detach: Let it live until `down`. Otherwise it ends with the handle's `with` block, or with this process, also
            when that is killed. Taking a cluster over does not change its end.
        progress: Where steps are shown; default standard error.

    Raises:
        HostError: The machine lacks something; each problem names its fix.
        ConflictError: A different cluster is running, or another process is starting or stopping one.
        ClusterError: Something did not start; nothing is left running.
    """
    config = config or ClusterConfig.from_environment()
    return lifecycle(config.provider, config.name, progress=progress).up(config, detach=detach)


def build(config: ClusterConfig | None = None, *, progress: Progress | None = None) -> None:
    """Builds or finds everything that `up` needs, without starting anything.

    Raises:
        HostError: The machine lacks something; each problem names its fix.
        ClusterError: A build failed.
    """
    config = config or ClusterConfig.from_environment()
    lifecycle(config.provider, config.name, progress=progress).build(config)


def attach(name: str = DEFAULT_NAME) -> Cluster:
    """Returns a handle of the running cluster.

    Raises:
        NotRunningError: It does not run.
    """
    return lifecycle(name=name).attach()


def down(name: str = DEFAULT_NAME, *, progress: Progress | None = None) -> None:
    """Stops the cluster and removes everything that it created; does nothing when it does not run.

    Raises:
        ConflictError: Another process is starting one.
        ClusterError: Something could not be removed.
    """
    lifecycle(name=name, progress=progress).down()


def status(name: str = DEFAULT_NAME) -> Status | None:
    """Returns the state of the running cluster; None when it does not run."""
    return lifecycle(name=name).status()


def lifecycle(
    provider: Provider | None = None, name: str = DEFAULT_NAME, *, progress: Progress | None = None
) -> Lifecycle:
    """Returns the operations on the cluster of this name; the environment chooses the default provider."""
    progress = progress or Progress()
    chosen = provider or ClusterConfig.from_environment().provider
    kind = KindLifecycle if chosen is Provider.KIND else LocalLifecycle
    return kind(cache_dir(), progress, check_name(name))
