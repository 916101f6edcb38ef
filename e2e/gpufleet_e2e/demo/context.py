"""The state of a demo run, and the operations on the cluster that its steps share."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof import Disagreement, EvidenceCollector, FleetEvidence, Source, WorkloadEvidence, objects
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_testbed import Cluster, repository_root

JsonObject = dict[str, Any]

WORKLOAD_NAMESPACE = "gpufleet-demo"
SYSTEM_NAMESPACE = "gpufleet-system"
DEVICE_PLUGIN, DRA = TRANSPORTS = ("DevicePlugin", "DRA")


@dataclass
class DemoContext:
    """A run of the demo. `problems` collects all disagreements."""

    cluster: Cluster
    collector: EvidenceCollector
    terminal: Terminal
    timeout_seconds: float
    """Longest wait of a single step."""
    transport: str = DEVICE_PLUGIN
    """How devices get into containers: the chart's value."""
    problems: list[Disagreement] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    """Workloads that were verified and not deleted since."""

    @property
    def shown_sources(self) -> list[Source]:
        """The sources that every pod of the demo has in this cluster."""
        checked = [one for one in self.collector.sources if one is not Source.CLAIM or self.transport == DRA]
        return [Source.STATUS, *checked]

    def check(self, *, holds: bool, subject: str, claim: str, otherwise: str = "") -> None:
        """Prints that a claim holds, or notes that it does not and what was seen instead."""
        if holds:
            self.terminal.ok(claim)
        else:
            self.note(Disagreement(subject, "demo", f"not true: {claim}{f' ({otherwise})' if otherwise else ''}"))

    def note(self, *problems: Disagreement) -> None:
        """Records disagreements and prints them."""
        for problem in problems:
            self.problems.append(problem)
            self.terminal.fail(str(problem))

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Applies one object in the demo's namespace with `kubectl apply`; unknown fields are rejected."""
        text = yaml.safe_dump(dict(manifest), sort_keys=False)
        self.cluster.kubectl("apply", "--validate=strict", f"--namespace={WORKLOAD_NAMESPACE}", "-f", "-", stdin=text)

    def delete(self, *names: str) -> None:
        """Deletes GPUWorkloads and waits until their pods are gone, and then their reservations.

        Raises:
            WaitTimeoutError: A reservation exists longer than the timeout.
        """
        begin = monotonic()
        self.delete_pods(*names)
        gone = monotonic() - begin
        self.wait_until_free(*names)
        freed = monotonic() - begin
        which = ", ".join(names)
        self.terminal.progress(f"{which} deleted: pods gone after {gone:.1f} s, reservations after {freed:.1f} s")

    def delete_pods(self, *names: str) -> None:
        """Deletes GPUWorkloads and waits until their pods are gone."""
        self.verified = [one for one in self.verified if one not in names]
        here, limit = f"--namespace={WORKLOAD_NAMESPACE}", f"--timeout={self.timeout_seconds:.0f}s"
        self.cluster.kubectl("delete", "gpuworkload", *names, here, "--ignore-not-found", limit)
        pods = ("pod", f"--selector={WORKLOAD_LABEL} in ({','.join(names)})")
        self.cluster.kubectl("wait", "--for=delete", *pods, here, limit, timeout=self.timeout_seconds + 10)

    def wait_until_free(self, *names: str) -> None:
        """Waits until no node has reservations for these workloads of the demo; for all of them when none is named.

        Raises:
            WaitTimeoutError: A reservation exists longer than the timeout.
        """
        for node in self.cluster.nodes:
            self.collector.wait_for_telemetry(
                node.name, lambda found: not reserves(found, *names), timeout_seconds=self.timeout_seconds
            )

    def wait_until_ready(self, name: str) -> JsonObject:
        """Waits until a workload is Ready, and prints each change of its replicas' states.

        Raises:
            WaitTimeoutError: It is not Ready in time; the message contains its conditions.
        """
        shown = ""

        def ready(found: JsonObject) -> bool:
            nonlocal shown
            if (line := progress_line(found)) != shown:
                self.terminal.progress(f"{name}: {line}")
                shown = line
            return objects.is_true(found, "Ready")

        return self.collector.wait_for_workload(WORKLOAD_NAMESPACE, name, ready, timeout_seconds=self.timeout_seconds)

    def evidence(self, name: str) -> WorkloadEvidence:
        """Collects the evidence on a workload, once every source has an answer or the time is over."""
        return self.collector.complete(WORKLOAD_NAMESPACE, name, timeout_seconds=self.timeout_seconds)

    def fleet(self) -> FleetEvidence:
        """Reads all GPUs and their holders."""
        return self.collector.fleet()


def reserves(telemetry: Mapping[str, Any], *workloads: str) -> bool:
    """Returns whether a GPUTelemetry has reservations for one of these workloads of the demo, or for any of it."""
    return any(
        (not workloads or assignment["workload"] in workloads) and assignment["namespace"] == WORKLOAD_NAMESPACE
        for assignment in telemetry.get("spec", {}).get("assignments", [])
    )


def progress_line(workload: Mapping[str, Any]) -> str:
    """Describes progress like `2 Reserved, 1 Bound`, or the reason of waiting."""
    placements = workload.get("status", {}).get("placements", [])
    states = Counter(placement["state"] for placement in placements)
    reason = objects.condition(workload, "Placed").get("reason", "")
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    return counted or reason or "accepted by the apiserver"


def examples(name: str) -> list[JsonObject]:
    """Loads the GPUWorkloads of `examples/<name>.yaml`."""
    return manifests(repository_root() / "examples" / f"{name}.yaml")


def manifest(path: Path) -> JsonObject:
    """Loads the only GPUWorkload of a manifest file.

    Raises:
        ValueError: The file does not contain exactly one.
    """
    found = manifests(path)
    if len(found) != 1:
        raise ValueError(f"{path} contains {len(found)} GPUWorkloads, not one")
    return found[0]


def manifests(path: Path) -> list[JsonObject]:
    """Loads the GPUWorkloads of a manifest file, in its order."""
    documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    return [dict(one) for one in documents if one.get("kind") == "GPUWorkload"]
