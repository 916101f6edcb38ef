"""What a caller may choose about a cluster, and the choices that environment variables make for him."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

DEFAULT_NAME = "gpufleet"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")
"""It becomes part of an interface name, which has 15 characters at most."""


def check_name(name: str) -> str:
    """The name, if a cluster can have it.

    Raises:
        ValueError: it can't.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster's name has at most 12 small letters, digits and dashes: {name!r}")
    return name


def down_command(name: str) -> str:
    """What the user types to end the cluster of that name."""
    return "make cluster-down" if name == DEFAULT_NAME else f"python -m gpufleet_testbed --name {name} down"


class Provider(StrEnum):
    """Who runs the nodes."""

    AUTO = "auto"
    """kind where a Docker engine answers, else local."""
    LOCAL = "local"
    """Real binaries on this machine in namespaces of their own; needs root, not Docker."""
    KIND = "kind"
    """kind (Kubernetes in Docker)."""


@dataclass(frozen=True)
class ClusterConfig:
    """A cluster that somebody wants. Two equal configurations describe the same cluster."""

    name: str = DEFAULT_NAME
    """Clusters of different names can run side by side, on different networks."""
    nodes: int = 2
    """Number of nodes that run pods."""
    provider: Provider = Provider.AUTO
    project_image: bool = True
    """Build localhost/gpufleet:dev from this checkout and load it on every node."""
    node_status_seconds: int = 10
    """How often a kubelet publishes its node's allocatable resources; 10 s is Kubernetes' own default."""
    network: str = "10.244.0.0/16"
    """IPv4 /16 for nodes and pods of the local provider; this machine must not route it elsewhere."""
    audit_policy: str | None = None
    """An audit policy (YAML text); the apiserver then writes `audit.log` in the log folder."""

    def __post_init__(self) -> None:
        """Refuse what could not work.

        Raises:
            ValueError: a value is out of range.
        """
        check_name(self.name)
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes must be from 1 to {MAX_NODES}, not {self.nodes}")
        if not 1 <= self.node_status_seconds <= 60:
            raise ValueError(f"node_status_seconds must be from 1 to 60, not {self.node_status_seconds}")
        if self.network_address.prefixlen != 16:
            raise ValueError(f"network must be a /16, not {self.network}")

    @property
    def network_address(self) -> IPv4Network:
        """The network, parsed."""
        return IPv4Network(self.network)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **chosen: Any) -> "ClusterConfig":
        """The default configuration, with what the environment says, and with `chosen` on top.

        Raises:
            ValueError: a value makes no sense.
        """
        found: dict[str, Any] = {}
        if provider := environ.get(ENV_PROVIDER):
            found["provider"] = Provider(provider)
        if network := environ.get(ENV_NETWORK):
            found["network"] = network
        return cls(**{**found, **chosen})


MAX_NODES = 20
"""More would need more than one machine's memory; the address plan would allow 200."""

ENV_CACHE = "GPUFLEET_CACHE"
ENV_ASSETS = "GPUFLEET_CLUSTER_ASSETS"
ENV_PROVIDER = "GPUFLEET_CLUSTER_PROVIDER"
ENV_NETWORK = "GPUFLEET_CLUSTER_NETWORK"


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for built tools, images and the running cluster: $GPUFLEET_CACHE or ~/.cache/gpufleet."""
    chosen = environ.get(ENV_CACHE)
    return Path(chosen).resolve() if chosen else Path.home() / ".cache" / "gpufleet"


def repository_root() -> Path:
    """The checkout that this package belongs to; the project's image is built from it."""
    return Path(__file__).resolve().parents[2]
