"""Renders the chart with the real helm, once per set of values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.install import NAMESPACE, RELEASE
from gpufleet_testbed import Cluster, repository_root

PATH = str(repository_root() / "charts" / "gpufleet")
MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"

Objects = dict[tuple[str, str], JsonObject]
"""Objects by kind and name."""


@dataclass(frozen=True)
class Chart:
    """The chart of this checkout. Objects are shared between tests, which must not change them."""

    cluster: Cluster
    _rendered: dict[str, Objects] = field(default_factory=dict)

    def render(self, values: Mapping[str, object] | None = None, *, api: str = "", hooks: bool = False) -> Objects:
        """Returns the objects of an installation with these values.

        Args:
            values: Values of the chart; names with dots are paths.
            api: An additional API version of the cluster.
            hooks: Whether to return the objects of hooks instead.

        Raises:
            ClusterError: helm rejects the values; the message contains its output.
        """
        given = json.dumps([nested(values or {}), api])
        if given not in self._rendered:
            found = [one for one in yaml.safe_load_all(self.text(values, api=api)) if one]
            self._rendered[given] = {(one["kind"], one["metadata"]["name"]): one for one in found}
        return {key: one for key, one in self._rendered[given].items() if is_hook(one) is hooks}

    def text(self, values: Mapping[str, object] | None = None, *, api: str = "") -> str:
        """Returns helm's output for these values."""
        words = ("template", RELEASE, PATH, f"--namespace={NAMESPACE}", "--values=-")
        more = [f"--api-versions={api}"] if api else []
        return self.cluster.helm(*words, *more, stdin=json.dumps(nested(values or {}))).stdout

    def agent(self, values: Mapping[str, object] | None = None, name: str = f"{RELEASE}-agent") -> Any:
        """Returns the pod template of an agent's DaemonSet."""
        return self.render(values)["DaemonSet", name]["spec"]["template"]

    def operator(self, values: Mapping[str, object] | None = None) -> Any:
        """Returns the pod template of the operator's Deployment."""
        return self.render(values)["Deployment", f"{RELEASE}-operator"]["spec"]["template"]


def is_hook(body: JsonObject) -> bool:
    """Returns whether helm creates the object only for a test or an uninstallation."""
    return "helm.sh/hook" in body["metadata"].get("annotations", {})


def nested(values: Mapping[str, object]) -> JsonObject:
    """Returns values as a tree: `{"agent.port": 1}` is `{"agent": {"port": 1}}`."""
    tree: JsonObject = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return tree


def kinds(objects: Objects) -> set[str]:
    return {kind for kind, _ in objects}
