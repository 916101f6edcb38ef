"""Measures the latency and cost of the whole system on a real cluster with simulated GPUs.

    python bench/end_to_end_latency.py [--rounds 20] [--rest-seconds 120] [--json FILE]

The time from `create` to a running container with devices, alternately for a GPUWorkload and for the same pod without
one (no gate, no operator): with the device plugin on one node, with a claim of the same device on the other one; and
the steps between, as a watch sees them. The time from the end of a pod with a claim until the pod runs that waits for
the same device. What the policies of adoption add to the creation of a pod. Memory of agent and operator; their writes
at rest. The chart is installed with its defaults and one node of each transport on
a separate cluster, which is deleted at the end.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

from kubernetes import client, config, watch

from gpufleet_e2e.latency.timeline import Timeline
from gpufleet_e2e.proof import objects
from gpufleet_e2e.proof.contract import RESOURCE, WORKLOAD_LABEL
from gpufleet_e2e.support.api import NAMESPACES, NODES, Api, JsonObject, pods, workloads
from gpufleet_e2e.support.claims import (
    CLASSES,
    OWN_CLASS,
    TRANSPORT_LABEL,
    claiming_pod,
    claims,
    device_class,
    resource_claim,
)
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.install import NAMESPACE as SYSTEM
from gpufleet_e2e.support.install import RELEASE, REPOSITORY, TAG
from gpufleet_e2e.support.manifests import adopting, gpuworkload, plain_pod
from gpufleet_e2e.support.measurements import Summary, per_minute, writes
from gpufleet_e2e.support.polling import eventually
from gpufleet_testbed import Cluster, ClusterConfig, Provider, repository_root, up

GPUS_PER_NODE = 8
HOSTNAME_LABEL = "kubernetes.io/hostname"
CLUSTER = ClusterConfig.from_environment(provider=Provider.LOCAL, name="bench", network="10.247.0.0/16", nodes=2)
ROUND_SECONDS = 60
PROCESSES = ("gpufleet-agent", "gpufleet-operat")
"""Process names as the kernel truncates them, to fifteen characters."""
PLAIN = {"gpuworkload": "plain pod", "gpuworkload, claim": "plain claim"}
"""What each kind is compared with."""
MAX_RATIO, MAX_SECOND_SECONDS, MAX_ADMISSION_MS = 1.3, 2.0, 10.0
PAIRS, DRY_RUNS, ADOPTING_WORKLOADS = 5, 100, 6


class Bench:
    """A namespace on a cluster with gpufleet installed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.api = Api(cluster.kubeconfig)
        self.namespace = f"bench-{secrets.token_hex(3)}"
        admin = config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self.plugin_node, self.claims_node = (node.name for node in cluster.nodes)
        self._uuid = ""
        """A device of the node with transport DRA."""
        self._core = client.CoreV1Api(admin)
        self.timeline = Timeline(admin, self.namespace)

    def install(self) -> None:
        """Installs the chart with its defaults on idle GPUs, and transport DRA on the second node."""
        labels = {"metadata": {"labels": {TRANSPORT_LABEL: "DRA"}}}
        self.api.patch(f"{NODES}/{self.claims_node}", labels)
        gpus = [Gpus(node, GPUS_PER_NODE) for node in self.cluster.nodes]
        chart = str(repository_root() / "charts" / "gpufleet")
        where = ("upgrade", "--install", RELEASE, chart, f"--namespace={SYSTEM}", "--create-namespace", "--wait")
        image = {"image.tag": TAG, "agent.image.repository": REPOSITORY, "operator.image.repository": REPOSITORY}
        driver = {"agent.driver.hostPath": "/opt/gpufleet/driver", "agent.driver.devices": "false"}
        values = {"transport": "PerNode", **image, **driver}
        options = (f"--set={name}={value}" for name, value in values.items())
        self.cluster.helm(*where, "--reset-values", *options, timeout=180)
        # On a reused cluster, running agents still have the previous GPUs.
        replaced = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self._agents()}
        for name in replaced.values():
            self.api.delete(f"{pods(SYSTEM)}/{name}", grace=0)
        # The kubelet rejects a pod whose plugin is being replaced, and the node is then left out for 15 s.
        eventually(lambda: self._agents_are_ready(replaced), within=90)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.api.create(NAMESPACES, body)
        eventually(lambda: self._offers(GPUS_PER_NODE, sum(len(one.uuids) for one in gpus)), within=90)
        self._uuid = gpus[1].uuids[0]
        if self.api.find(f"{CLASSES}/{OWN_CLASS}") is None:
            self.api.create(CLASSES, device_class())
        account = f"{NAMESPACES}/{self.namespace}/serviceaccounts/default"
        eventually(lambda: self.api.get(account), within=20)

    def _agents(self) -> list[JsonObject]:
        return self.api.list(pods(SYSTEM), labelSelector="app.kubernetes.io/component=agent")

    def _agents_are_ready(self, replaced: Collection[str]) -> None:
        new = (pod for pod in self._agents() if pod["metadata"]["uid"] not in replaced)
        ready = sum(objects.is_true(pod, "Ready") for pod in new)
        _expect(ready >= len(self.cluster.nodes), f"{ready} of {len(self.cluster.nodes)} new agents are ready")

    def managed(self, name: str, node: str) -> float:
        """Returns the seconds from creating a GPUWorkload for a node until its container runs with a device."""
        began = monotonic()
        self.api.create(workloads(self.namespace), gpuworkload(name, node=node))
        took = self._running(f"{WORKLOAD_LABEL}={name}", began)
        self.api.delete(f"{workloads(self.namespace)}/{name}")
        return took

    def plain(self, name: str) -> float:
        """Returns the seconds from creating a pod that requests a device until its container runs with one."""
        on_node = {HOSTNAME_LABEL: self.plugin_node}
        body = plain_pod(name, count=1, labels={"bench": name}, nodeSelector=on_node)
        began = monotonic()
        self.api.create(pods(self.namespace), body)
        took = self._running(f"bench={name}", began)
        self.api.delete(f"{pods(self.namespace)}/{name}")
        return took

    def plain_claim(self, name: str) -> float:
        """Returns the seconds from creating a claim and its pod until the pod's container runs with a device."""
        began = monotonic()
        self._create_with_claim(name)
        took = self._running(f"bench={name}", began)
        self.api.delete(f"{pods(self.namespace)}/{name}")
        self.api.delete(f"{claims(self.namespace)}/{name}")
        return took

    def _create_with_claim(self, name: str) -> None:
        """Creates a claim of the device, and a pod with it."""
        self.api.create(claims(self.namespace), resource_claim(name, self._uuid))
        body = claiming_pod(name, name, nodeSelector={HOSTNAME_LABEL: self.claims_node})
        body["metadata"]["labels"] = {"bench": name}
        self.api.create(pods(self.namespace), body)

    def second_of_two(self, name: str) -> float:
        """Returns the seconds from the end of a pod until the one runs that waits for the same device by a claim."""
        first, second = f"{name}-first", f"{name}-second"
        for pod in (first, second):
            self._create_with_claim(pod)
            if pod == first:
                self._running(f"bench={pod}", monotonic())
        path = f"{pods(self.namespace)}/{first}"
        self.api.delete(path)
        eventually(lambda: _expect(self.api.find(path) is None, f"{first} has not ended"), within=30, every=0.02)
        took = self._running(f"bench={second}", monotonic())
        self.api.delete(f"{pods(self.namespace)}/{second}")
        for pod in (first, second):
            self.api.delete(f"{claims(self.namespace)}/{pod}")
        return took

    def admission(self, requests: int) -> dict[str, list[float]]:
        """Returns the seconds of dry runs that create a pod with the label of a workload, and one without, in turn."""
        names = [f"adopts-{number}" for number in range(ADOPTING_WORKLOADS)]
        for name in names:
            self.api.create(workloads(self.namespace), adopting(name))
        path, labels = pods(self.namespace), {WORKLOAD_LABEL: names[0]}
        bodies = {"labeled": plain_pod("dry", labels=labels), "plain": plain_pod("dry")}
        eventually(lambda: self.api.create(path, bodies["labeled"], dry_run=True), within=ROUND_SECONDS)
        found: dict[str, list[float]] = {kind: [] for kind in bodies}
        for _ in range(requests):
            for kind, body in bodies.items():
                began = monotonic()
                self.api.create(path, body, dry_run=True)
                found[kind].append(monotonic() - began)
        for name in names:
            self.api.delete(f"{workloads(self.namespace)}/{name}")
        return found

    def rest(self) -> None:
        """Waits until no pod and no reservation is left, so that all measurements start from the same state."""

        def empty() -> None:
            left = [one["metadata"]["name"] for one in self.api.list(pods(self.namespace))]
            reserved = [
                one for node in self._telemetry() for one in node.get("spec", {}).get("assignments", [])
            ]  # of all namespaces: no other workload should exist
            _expect(not left, f"pods {left}")
            _expect(not reserved, f"reservations {reserved}")

        eventually(empty, within=ROUND_SECONDS)

    def memory(self) -> dict[str, list[float]]:
        """Returns the resident memory of each process in MiB."""
        found: dict[str, list[float]] = {name: [] for name in PROCESSES}
        for node in self.cluster.nodes:
            for name in PROCESSES:
                for pid in node.run(["pgrep", "-x", name], check=False).stdout.split():
                    status = node.run(["cat", f"/proc/{pid}/status"]).stdout
                    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
                    found[name].append(round(int(kib) / 1024, 1))
        return found

    def writes_at_rest(self, seconds: float) -> dict[str, float]:
        """Returns writes at rest, per minute and node: to gpufleet's resources, and to pods except their status."""
        before, began = writes(self.api.text("/metrics")), monotonic()
        sleep(seconds)  # the measurement itself
        after = writes(self.api.text("/metrics"))
        grown = per_minute(before, after, monotonic() - began)
        mine = {key: value for key, value in grown.items() if key.startswith("gpufleet.dev/") or key == "pods"}
        return {key: round(value / len(self.cluster.nodes), 2) for key, value in mine.items()}

    def fill(self, count: int) -> None:
        """Creates `count` workloads and waits until they are Ready."""
        for number in range(count):
            self.api.create(workloads(self.namespace), gpuworkload(f"rest-{number}"))

        def ready() -> None:
            found = self.api.list(workloads(self.namespace))
            waiting = [one["metadata"]["name"] for one in found if not objects.is_true(one, "Ready")]
            _expect(not waiting, f"not Ready: {waiting}")

        eventually(ready, within=ROUND_SECONDS)

    def clear(self) -> None:
        """Deletes the workloads and the namespace."""
        for one in self.api.list(workloads(self.namespace)):
            self.api.delete(f"{workloads(self.namespace)}/{one['metadata']['name']}")
        self.rest()
        self.api.delete(f"{NAMESPACES}/{self.namespace}")

    def _running(self, selector: str, began: float) -> float:
        listing: Callable[..., Any] = self._core.list_namespaced_pod
        stream = watch.Watch().stream(  # type: ignore[no-untyped-call]  # published without types
            listing, self.namespace, label_selector=selector, timeout_seconds=ROUND_SECONDS
        )
        for event in stream:
            if _has_devices(event["raw_object"]):
                return monotonic() - began
        raise AssertionError(f"no container with devices within {ROUND_SECONDS} s: {selector}")

    def _telemetry(self) -> list[Mapping[str, Any]]:
        return list(self.api.list("/apis/gpufleet.dev/v1alpha1/gputelemetries"))

    def _offers(self, by_plugin: int, count: int) -> None:
        nodes = self.api.list("/api/v1/nodes")
        offered = sum(int(one["status"]["allocatable"].get(RESOURCE, "0")) for one in nodes)
        reported = sum(one.get("status", {}).get("summary", {}).get("healthy", 0) for one in self._telemetry())
        _expect(
            (offered, reported) == (by_plugin, count),
            f"nodes offer {offered}, not {by_plugin}; agents report {reported}, not {count}",
        )
        transports = {one["metadata"]["name"]: one["status"].get("transport") for one in self._telemetry()}
        _expect(transports[self.claims_node] == "DRA", f"transports: {transports}")


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - like assert, but never disabled
    if not holds:
        raise AssertionError(otherwise)


def _has_devices(pod: Mapping[str, Any]) -> bool:
    return any(
        "running" in status.get("state", {}) and status.get("allocatedResourcesStatus")
        for status in pod.get("status", {}).get("containerStatuses", [])
    )


def since_creation(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median seconds of each step since the pod was created."""
    since: dict[str, list[float]] = {}
    for moments in found:
        for step, at in moments.items():
            since.setdefault(step, []).append(at - moments["created"])
    return {step: round(median(seconds), 4) for step, seconds in since.items()}


@contextmanager
def prepared() -> Iterator[Bench]:
    """Yields a bench on a separate cluster."""
    with up(CLUSTER) as cluster:
        bench = Bench(cluster)
        bench.install()
        try:
            yield bench
        finally:
            bench.clear()


def measure(bench: Bench, rounds: int, rest_seconds: float) -> dict[str, Any]:
    """Returns all figures, as in the JSON file."""
    kinds: dict[str, Callable[[str], float]] = {
        "gpuworkload": lambda name: bench.managed(name, bench.plugin_node),
        "plain pod": bench.plain,
        "gpuworkload, claim": lambda name: bench.managed(name, bench.claims_node),
        "plain claim": bench.plain_claim,
    }
    durations: dict[str, list[float]] = {kind: [] for kind in kinds}
    steps: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with bench.timeline:
        for number in range(rounds):
            # Alternate, so that other load on the machine affects all alike.
            for position, (kind, run) in enumerate(kinds.items()):
                name = f"pod-{number}-{position}"
                durations[kind].append(run(name))
                bench.rest()
                steps[kind].append(bench.timeline.steps(name))
            print(f"round {number + 1} of {rounds}: {', '.join(f'{found[-1]:.2f} s' for found in durations.values())}")
    second = [bench.second_of_two(f"pair-{number}") for number in range(PAIRS)]
    admission = bench.admission(DRY_RUNS)
    idle = bench.writes_at_rest(rest_seconds)
    bench.fill(GPUS_PER_NODE)
    busy = bench.writes_at_rest(rest_seconds)
    return {
        "seconds_to_running": {name: asdict(Summary.of(found)) for name, found in durations.items()},
        "ratios": {kind: median(durations[kind]) / median(durations[PLAIN[kind]]) for kind in PLAIN},
        "seconds_since_creation": {name: since_creation(found) for name, found in steps.items()},
        "seconds_from_end_to_second_pod": asdict(Summary.of(second)),
        "seconds_of_dry_runs": {name: asdict(Summary.of(found)) for name, found in admission.items()},
        "resident_mib": bench.memory(),
        "writes_per_minute_and_node": {"nothing runs": idle, f"{GPUS_PER_NODE} workloads run": busy},
        "rest_seconds": rest_seconds,
        "nodes": len(bench.cluster.nodes),
        "gpus_per_node": GPUS_PER_NODE,
    }


def show(found: Mapping[str, Any]) -> None:
    """Prints the figures as text."""
    print("\nfrom create to a running container with a device, in seconds")
    for name, summary in found["seconds_to_running"].items():
        print(f"  {name:18} p50 {summary['p50']:.2f}  min {summary['min']:.2f}  max {summary['max']:.2f}")
    for name, ratio in found["ratios"].items():
        print(f"  {name} takes {ratio:.2f} times as long as {PLAIN[name]} (goal {MAX_RATIO})")
    print("median seconds since the pod was created, as watches show it")
    for name, steps in found["seconds_since_creation"].items():
        print(f"  {name:18} {', '.join(f'{step} {seconds:.3f}' for step, seconds in steps.items())}")
    second, dry = found["seconds_from_end_to_second_pod"], found["seconds_of_dry_runs"]
    print(
        f"second pod for a device runs {second['p50']:.2f} s after the end of the first (goal {MAX_SECOND_SECONDS:g} s)"
    )
    adds = (dry["labeled"]["p50"] - dry["plain"]["p50"]) * 1000
    print(f"adoption adds {adds:.1f} ms to the creation of a pod (goal {MAX_ADMISSION_MS:g} ms)")
    print("resident memory in MiB")
    for name, sizes in found["resident_mib"].items():
        print(f"  {name:16} {', '.join(map(str, sizes))}")
    print("writes per minute and node")
    for when, kinds in found["writes_per_minute_and_node"].items():
        print(f"  {when}: {', '.join(f'{value} {kind}' for kind, value in kinds.items()) or 'none'}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the time from create to running, and the cost at rest.")
    parser.add_argument(
        "--rounds", type=int, default=20, help="number of measurements of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--rest-seconds", type=float, default=120, help="duration of counting writes (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    with prepared() as bench:
        found = measure(bench, options.rounds, options.rest_seconds)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
