"""The objects that the checks look at, decoded once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final

from gpufleet_api.names import DRA_DRIVER, FORBIDDEN_RESOURCES, RESOURCE, TOLERATED_TAINTS, Transport
from gpufleet_cli.cluster.kinds import (
    AGENTS,
    BINDINGS,
    CRDS,
    DENIED_READS,
    LEASES,
    NAMESPACES,
    NODES,
    OPERATORS,
    PODS,
    POLICIES,
    RUNTIME_CLASSES,
    SLICES,
    TELEMETRY,
    WORKLOADS,
    ObjectKind,
)
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.view.fleet_view import FleetView, fleet_view
from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, text

EXAMINED: Final = (
    CRDS, NODES, TELEMETRY, WORKLOADS, PODS, NAMESPACES, AGENTS, OPERATORS, POLICIES, BINDINGS, RUNTIME_CLASSES, SLICES,
    LEASES, DENIED_READS,
)  # fmt: skip
"""Kinds that the checks look at. A user who may not read all of them gets the other checks."""

_CHART = "gpufleet-"
_COMPONENT = "app.kubernetes.io/component"
_GPU_LABELS = (
    "nvidia.com/gpu.present",
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/pci-0300_10de.present",
    "feature.node.kubernetes.io/pci-0302_10de.present",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
)
"""Labels of nodes with a GPU, set by GPU feature discovery, Node Feature Discovery and clouds."""


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster as it was read. `version` is that of this program.

    `own_skew_seconds` is how far this machine's clock is ahead of the apiserver's; None: unknown.
    """

    lists: ObjectLists
    version: str
    own_skew_seconds: float | None = None
    view: FleetView = field(default_factory=FleetView)

    @classmethod
    def of(cls, lists: ObjectLists, version: str, own_skew_seconds: float | None = None) -> "ClusterFacts":
        view = fleet_view(lists.of(TELEMETRY), lists.of(WORKLOADS), lists.of(PODS), lists.now, lists.renewals)
        return cls(lists, version, own_skew_seconds, view)

    @property
    def now(self) -> datetime | None:
        return self.lists.now

    def known(self, *kinds: ObjectKind) -> bool:
        """Returns whether all of these kinds could be read."""
        return not any(kind in self.lists.unreadable for kind in kinds)

    @cached_property
    def nodes(self) -> Mapping[str, Json]:
        """Returns the Nodes by name."""
        return {name_of(node): node for node in self.lists.of(NODES)}

    @cached_property
    def agents(self) -> list[Json]:
        """Returns the DaemonSets of agents."""
        return [one for one in self.lists.of(AGENTS) if _is_component(one, "agent")]

    @cached_property
    def operators(self) -> list[Json]:
        """Returns the Deployments of operators."""
        return [one for one in self.lists.of(OPERATORS) if _is_component(one, "operator")]

    @property
    def policies(self) -> list[Json]:
        """Returns the ValidatingAdmissionPolicies of the chart."""
        return [one for one in self.lists.of(POLICIES) if _is_component(one, "policy")]

    def pods_of(self, owner: Json) -> list[Json]:
        """Returns the pods that a Deployment or DaemonSet selects."""
        wanted = as_map(as_map(as_map(owner.get("spec")).get("selector")).get("matchLabels")).items()
        namespace = namespace_of(owner)
        return [
            pod
            for pod in self.lists.of(PODS)
            if namespace_of(pod) == namespace and wanted and wanted <= labels_of(pod).items()
        ]

    def agent_pods(self, node: str) -> list[Json]:
        """Returns the agents' pods on a node."""
        return self._agent_pods.get(node, [])

    @cached_property
    def _agent_pods(self) -> Mapping[str, list[Json]]:
        found: dict[str, list[Json]] = {}
        for pod in (pod for owner in self.agents for pod in self.pods_of(owner)):
            found.setdefault(text(as_map(pod.get("spec")).get("nodeName")), []).append(pod)
        return found

    def uses_dra(self, node: str) -> bool:
        """Returns whether the agent of a node serves ResourceClaims instead of the device plugin API."""
        wanted = f"--transport={Transport.DRA}"
        return any(
            wanted in as_list(container.get("args"))
            for pod in self.agent_pods(node)
            for container in maps(as_map(pod.get("spec")).get("containers"))
        )

    def published_devices(self, node: str) -> int:
        """Returns the number of devices in the ResourceSlices of a node."""
        return self._published_devices[node]

    @cached_property
    def _published_devices(self) -> Counter[str]:
        found = Counter[str]()
        for spec in (as_map(one.get("spec")) for one in self.lists.of(SLICES)):
            if spec.get("driver") == DRA_DRIVER:
                found[text(spec.get("nodeName"))] += len(as_list(spec.get("devices")))
        return found

    @cached_property
    def dra_driver(self) -> str:
        """Returns the driver of nodes with transport DRA, as the agents are configured."""
        return next((flag(one, "--dra-driver") for one in self.agents if flag(one, "--dra-driver")), DRA_DRIVER)

    @cached_property
    def resource(self) -> str:
        """Returns the extended resource for whole GPUs, as the agents are configured."""
        return next((flag(one, "--resource") for one in self.agents if flag(one, "--resource")), RESOURCE)

    @property
    def tolerated_taints(self) -> frozenset[str]:
        """Returns the keys of taints that the operator makes pods tolerate."""
        given = [flag(one, "--tolerate-taints") for one in self.operators]
        return frozenset(given[0].split(",")) if given else frozenset(TOLERATED_TAINTS)

    def gpu_nodes(self) -> Iterator[tuple[str, Json, str]]:
        """Yields name, Node and evidence of every node that has a GPU."""
        for name, node in self.nodes.items():
            evidence = next((label for label in _GPU_LABELS if labels_of(node).get(label)), "")
            capacity = as_map(as_map(node.get("status")).get("capacity"))
            offered = [key for key in capacity if _is_gpu(key, self.resource) and capacity[key] not in ("0", 0)]
            reported = self.view.nodes.get(name)
            if evidence:
                yield name, node, f"label {evidence}={labels_of(node)[evidence]}"
            elif offered:
                yield name, node, f"capacity {offered[0]}={capacity[offered[0]]}"
            elif reported is not None and reported.gpus:
                yield name, node, f"{len(reported.gpus)} GPUs in its GPUTelemetry"


def name_of(body: Json) -> str:
    return text(as_map(body.get("metadata")).get("name"))


def namespace_of(body: Json) -> str:
    return text(as_map(body.get("metadata")).get("namespace"))


def labels_of(body: Json) -> Json:
    return as_map(as_map(body.get("metadata")).get("labels"))


def flag(owner: Json, name: str) -> str:
    """Returns the value of a flag in the arguments of the containers; empty without the flag."""
    for container in maps(pod_spec(owner).get("containers")):
        for argument in map(text, as_list(container.get("args"))):
            if argument.startswith(f"{name}="):
                return argument.removeprefix(f"{name}=")
    return ""


def pod_spec(owner: Json) -> Json:
    """Returns the spec of the pods of a Deployment or DaemonSet."""
    return as_map(as_map(as_map(owner.get("spec")).get("template")).get("spec"))


def tolerates(tolerations: Iterable[Json], taint: Json) -> bool:
    """Returns whether one of the tolerations matches the taint."""
    for one in tolerations:
        effects = (None, "", taint.get("effect"))
        if one.get("effect") not in effects or one.get("key") not in (None, "", taint.get("key")):
            continue
        if one.get("operator") == "Exists" or (
            one.get("key") and (one.get("value") or "") == (taint.get("value") or "")
        ):
            return True
    return False


def _is_component(body: Json, component: str) -> bool:
    labels = labels_of(body)
    return labels.get(_COMPONENT) == component and text(labels.get("helm.sh/chart")).startswith(_CHART)


def _is_gpu(resource: str, ours: str) -> bool:
    return resource == ours or resource.startswith(tuple(pattern.rstrip("*") for pattern in FORBIDDEN_RESOURCES))
