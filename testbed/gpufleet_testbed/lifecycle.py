"""The functions that most callers need: up, down, attach, status, for whichever provider fits this machine."""

from typing import Protocol

from gpufleet_testbed.config import DEFAULT_NAME, ClusterConfig, Provider, cache_dir, check_name
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.handles import Cluster
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.kind.lifecycle import KindLifecycle
from gpufleet_testbed.local.lifecycle import LocalLifecycle
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.status import Status


class Lifecycle(Protocol):
    """What a provider does with the cluster of one name."""

    def up(self, config: ClusterConfig, *, detach: bool) -> Cluster:
        """Start the cluster, or take over the one that runs."""

    def build(self, config: ClusterConfig) -> None:
        """Make everything that `up` needs, without starting anything."""

    def attach(self) -> Cluster:
        """Handle of the running cluster."""

    def down(self) -> None:
        """End the cluster and remove its traces."""

    def status(self) -> Status | None:
        """State of the running cluster; None when there is none."""


def up(config: ClusterConfig | None = None, *, detach: bool = False, progress: Progress | None = None) -> Cluster:
    """Start a cluster, or take over the running one if it is as wanted.

    Args:
        config: what is wanted; default `ClusterConfig.from_environment()`.
        detach: let it live until `down`. Otherwise it ends with the handle's `with` block, or with this process,
            however that ends. A cluster that was taken over lives as long as it would have.
        progress: where steps are shown; default standard error.

    Raises:
        HostError: this machine lacks something; each problem names its fix.
        ConflictError: a different cluster is running, or somebody is starting or stopping one.
        ClusterError: something did not start; the machine is clean again.
    """
    config = config or ClusterConfig.from_environment()
    return lifecycle(config.provider, config.name, progress=progress).up(config, detach=detach)


def build(config: ClusterConfig | None = None, *, progress: Progress | None = None) -> None:
    """Build or find everything that `up` needs, without starting anything.

    Raises:
        HostError: this machine lacks something; each problem names its fix.
        ClusterError: a build failed.
    """
    config = config or ClusterConfig.from_environment()
    lifecycle(config.provider, config.name, progress=progress).build(config)


def attach(name: str = DEFAULT_NAME) -> Cluster:
    """Handle of the running cluster.

    Raises:
        NotRunningError: there is none.
    """
    return lifecycle(name=name).attach()


def down(name: str = DEFAULT_NAME, *, progress: Progress | None = None) -> None:
    """End the cluster, whoever started it, and remove its traces; nothing happens when there is none.

    Raises:
        ConflictError: somebody is just starting one.
        ClusterError: something could not be removed.
    """
    lifecycle(name=name, progress=progress).down()


def status(name: str = DEFAULT_NAME) -> Status | None:
    """State of the running cluster; None when there is none."""
    return lifecycle(name=name).status()


def lifecycle(
    provider: Provider | None = None, name: str = DEFAULT_NAME, *, progress: Progress | None = None
) -> Lifecycle:
    """The provider's functions for the cluster of that name; the default provider is the environment's choice."""
    progress = progress or Progress()
    chosen = choose_provider(provider or ClusterConfig.from_environment().provider)
    kind = KindLifecycle if chosen is Provider.KIND else LocalLifecycle
    return kind(cache_dir(), progress, check_name(name))


def choose_provider(wanted: Provider, runner: Runner = run) -> Provider:
    """The provider to use: the wanted one; for AUTO, kind where a Docker engine answers, else local."""
    if wanted is not Provider.AUTO:
        return wanted
    try:
        answered = runner(["docker", "info"], check=False, timeout=20).returncode == 0
    except (ClusterError, TimeoutError):  # no docker command, or an engine that hangs
        return Provider.LOCAL
    return Provider.KIND if answered else Provider.LOCAL
