"""Configuration of a cluster, with defaults from environment variables."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from gpufleet_testbed.versions import DEFAULT_KUBERNETES, KUBERNETES_RELEASES

DEFAULT_NAME = "gpufleet"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")
"""It is part of an interface name, which has at most 15 characters."""


def check_name(name: str) -> str:
    """Returns the name.

    Raises:
        ValueError: The name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: Invalid value: {name!r}: must match {_NAME.pattern}")
    return name


def check_kubernetes(minor: str, field: str = "kubernetes") -> str:
    """Returns the minor version of Kubernetes.

    Args:
        minor: Such as `1.36`.
        field: Where the value comes from, for the message.

    Raises:
        ValueError: The test bed has no such version.
    """
    if minor not in KUBERNETES_RELEASES:
        choices = ", ".join(f'"{choice}"' for choice in KUBERNETES_RELEASES)
        raise ValueError(f'{field}: Unsupported value: "{minor}": supported values: {choices}')
    return minor


def down_command(name: str) -> str:
    """Returns the command that stops the cluster of this name."""
    return "make cluster-down" if name == DEFAULT_NAME else f"python -m gpufleet_testbed --name {name} down"


class Provider(StrEnum):
    """How nodes run."""

    LOCAL = "local"
    """Binaries in separate namespaces of this machine; needs root, but not Docker."""
    KIND = "kind"
    """kind (Kubernetes in Docker). Run with a node image that is built here, so never chosen by itself."""


@dataclass(frozen=True)
class ClusterConfig:
    """Describes a cluster."""

    name: str = DEFAULT_NAME
    """Clusters of different names can run at the same time, on different networks."""
    nodes: int = 2
    """Number of nodes for pods."""
    provider: Provider = Provider.LOCAL
    kubernetes: str = DEFAULT_KUBERNETES
    """Minor version of Kubernetes, one of `KUBERNETES_RELEASES`. kind has the default version only."""
    project_image: bool = True
    """Whether to build localhost/gpufleet:dev from this checkout and load it on every node."""
    node_status_seconds: int = 10
    """Interval of the kubelet's node status, with allocatable resources; 10 s is Kubernetes' default."""
    network: str = "10.244.0.0/16"
    """IPv4 /16 for nodes and pods of the local provider, without another route on this machine."""
    kind_node_image: str | None = None
    """Image of kind's nodes; `build` builds one without a registry. Default: the pinned one of kind's release."""
    component_memory_mib: int = 768
    """From this size on, a component of the local provider collects garbage more often, so that its heap does not grow.

    One that needs more does little else: kube-apiserver with 1,000 nodes and their GPUTelemetry takes ten times as much
    processor time at 768.
    """
    audit_policy: str | None = None
    """Audit policy as YAML; if set, the apiserver writes `audit.log` in the log folder."""

    def __post_init__(self) -> None:
        """Validates the values.

        Raises:
            ValueError: A value is out of range.
        """
        check_name(self.name)
        check_kubernetes(self.kubernetes)
        if self.provider is Provider.KIND and self.kubernetes != DEFAULT_KUBERNETES:
            raise ValueError(f'kubernetes: Unsupported value: "{self.kubernetes}": kind has {DEFAULT_KUBERNETES} only')
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes: Invalid value: {self.nodes}: must be from 1 to {MAX_NODES}")
        if not 1 <= self.node_status_seconds <= 60:
            raise ValueError(f"node_status_seconds: Invalid value: {self.node_status_seconds}: must be from 1 to 60")
        if self.network_address.prefixlen != 16:
            raise ValueError(f"network: Invalid value: {self.network}: must be an IPv4 /16")

    @property
    def network_address(self) -> IPv4Network:
        return IPv4Network(self.network)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **chosen: Any) -> "ClusterConfig":
        """Builds a configuration from defaults, the environment, and `chosen`, in this order of precedence.

        Raises:
            ValueError: A value is invalid.
        """
        found: dict[str, Any] = {}
        if provider := environ.get(ENV_PROVIDER):
            found["provider"] = Provider(provider)
        if network := environ.get(ENV_NETWORK):
            found["network"] = network
        if kubernetes := environ.get(ENV_KUBERNETES):
            found["kubernetes"] = check_kubernetes(kubernetes, ENV_KUBERNETES)
        if image := environ.get(ENV_NODE_IMAGE):
            found["kind_node_image"] = image
        return cls(**{**found, **chosen})


MAX_NODES = 20
"""Limited by the memory of one machine; the address plan allows 200."""

ENV_CACHE = "GPUFLEET_CACHE"
ENV_ASSETS = "GPUFLEET_CLUSTER_ASSETS"
ENV_PROVIDER = "GPUFLEET_CLUSTER_PROVIDER"
ENV_NETWORK = "GPUFLEET_CLUSTER_NETWORK"
ENV_KUBERNETES = "GPUFLEET_CLUSTER_KUBERNETES"
ENV_NODE_IMAGE = "GPUFLEET_KIND_NODE_IMAGE"
BUILT_NODE_IMAGE = "build"
"""Value of `kind_node_image`."""


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of tools, images and running clusters: $GPUFLEET_CACHE or ~/.cache/gpufleet."""
    chosen = environ.get(ENV_CACHE)
    return Path(chosen).resolve() if chosen else Path.home() / ".cache" / "gpufleet"


def repository_root() -> Path:
    """Returns the checkout that contains this package, from which the project's image is built."""
    return Path(__file__).resolve().parents[2]
