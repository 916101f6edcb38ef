"""The functions that most callers need: up, down, attach, status, for whichever provider fits this machine."""

from typing import Protocol

from cluster.config import ClusterConfig
from cluster.handle import Cluster
from cluster.status import Status


class Lifecycle(Protocol):
    """One provider's clusters; a cache folder has at most one."""

    def up(self, config: ClusterConfig, *, detach: bool) -> Cluster:
        """Start the cluster, or take over the one that runs."""

    def attach(self) -> Cluster:
        """Handle of the running cluster."""

    def down(self) -> None:
        """End the cluster and remove its traces."""

    def status(self) -> Status | None:
        """State of the running cluster; None when there is none."""
