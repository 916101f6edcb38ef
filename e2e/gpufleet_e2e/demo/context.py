"""What every act needs at hand, and the few ways in which acts change the cluster and wait for it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof import Disagreement, EvidenceCollector, FleetEvidence, WorkloadEvidence, objects
from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_testbed import Cluster, repository_root

JsonObject = dict[str, Any]

WORKLOAD_NAMESPACE = "gpufleet-demo"
SYSTEM_NAMESPACE = "gpufleet-system"


@dataclass
class DemoContext:
    """One run of the demo. `problems` grows with everything that does not fit."""

    cluster: Cluster
    collector: EvidenceCollector
    terminal: Terminal
    timeout_seconds: float
    """How long to wait for any one thing."""
    problems: list[Disagreement] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)
    """Workloads that were proven and not deleted since."""

    def check(self, *, holds: bool, subject: str, claim: str, otherwise: str = "") -> None:
        """Say that a claim holds, or note that it doesn't and what was seen instead."""
        if holds:
            self.terminal.good(claim)
        else:
            self.note(Disagreement(subject, "demo", f"not so: {claim}{f' ({otherwise})' if otherwise else ''}"))

    def note(self, *problems: Disagreement) -> None:
        """Keep what does not fit, and say so at once."""
        for problem in problems:
            self.problems.append(problem)
            self.terminal.bad(str(problem))

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """`kubectl apply` one object into the demo's namespace, refusing unknown fields."""
        text = yaml.safe_dump(dict(manifest), sort_keys=False)
        self.cluster.kubectl("apply", "--validate=strict", f"--namespace={WORKLOAD_NAMESPACE}", "-f", "-", stdin=text)

    def delete(self, *names: str) -> None:
        """Delete GPUWorkloads and wait until their pods are gone, and then their reservations.

        Raises:
            WaitTimeoutError: a reservation stands longer than the timeout.
        """
        begin = monotonic()
        self.delete_pods(*names)
        gone = monotonic() - begin
        self.wait_until_free(*names)
        freed = monotonic() - begin
        which = ", ".join(names)
        self.terminal.progress(f"{which} deleted: pods gone after {gone:.1f} s, reservations after {freed:.1f} s")

    def delete_pods(self, *names: str) -> None:
        """Delete GPUWorkloads and wait until their pods are gone."""
        self.standing = [one for one in self.standing if one not in names]
        here, limit = f"--namespace={WORKLOAD_NAMESPACE}", f"--timeout={self.timeout_seconds:.0f}s"
        self.cluster.kubectl("delete", "gpuworkload", *names, here, "--ignore-not-found", limit)
        pods = ("pod", f"--selector={WORKLOAD_LABEL} in ({','.join(names)})")
        self.cluster.kubectl("wait", "--for=delete", *pods, here, limit, timeout=self.timeout_seconds + 10)

    def wait_until_free(self, *names: str) -> None:
        """Wait until no node reserves anything for these workloads of the demo; for any of them when none is named.

        Raises:
            WaitTimeoutError: a reservation stands longer than the timeout.
        """
        for node in self.cluster.nodes:
            self.collector.wait_for_telemetry(
                node.name, lambda found: not reserves(found, *names), timeout_seconds=self.timeout_seconds
            )

    def wait_until_ready(self, name: str) -> JsonObject:
        """Follow a workload until it is Ready, with a line whenever its replicas have come a step further.

        Raises:
            WaitTimeoutError: it isn't Ready in time; the message has its conditions.
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
        """Everything that is said about a workload, once every source has spoken or the time is over."""
        return self.collector.complete(WORKLOAD_NAMESPACE, name, timeout_seconds=self.timeout_seconds)

    def fleet(self) -> FleetEvidence:
        """The GPUs and their holders, now."""
        return self.collector.fleet()


def reserves(telemetry: Mapping[str, Any], *workloads: str) -> bool:
    """Whether a GPUTelemetry still reserves devices for one of these workloads of the demo, or for any of it."""
    return any(
        (not workloads or assignment["workload"] in workloads) and assignment["namespace"] == WORKLOAD_NAMESPACE
        for assignment in telemetry.get("spec", {}).get("assignments", [])
    )


def progress_line(workload: Mapping[str, Any]) -> str:
    """`2 Reserved, 1 Bound`, or why it waits."""
    placements = workload.get("status", {}).get("placements", [])
    states = Counter(placement["state"] for placement in placements)
    reason = objects.condition(workload, "Placed").get("reason", "")
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    return counted or reason or "seen by the apiserver"


def examples(name: str) -> list[JsonObject]:
    """The GPUWorkloads in `examples/<name>.yaml`, as a reader would apply them."""
    return manifests(repository_root() / "examples" / f"{name}.yaml")


def manifest(path: Path) -> JsonObject:
    """The one GPUWorkload in a manifest file. Raises ValueError when there isn't exactly one."""
    found = manifests(path)
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} GPUWorkloads, not one")
    return found[0]


def manifests(path: Path) -> list[JsonObject]:
    """The GPUWorkloads in a manifest file, in its order."""
    documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    return [dict(one) for one in documents if one.get("kind") == "GPUWorkload"]
