"""Measures the latency and cost of the whole system on a real cluster with simulated GPUs.

    python bench/end_to_end_latency.py [--rounds 20] [--rest-seconds 120] [--json FILE]

The time from `create` to a running container with devices, alternately for a GPUWorkload and for the same pod with the
plain device plugin (no gate, no operator); memory of agent and operator; their writes at rest. The chart is installed
with its defaults on a separate cluster, which is deleted at the end.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from kubernetes import client, config, watch

from gpufleet_e2e.proof import objects
from gpufleet_e2e.proof.contract import RESOURCE, WORKLOAD_LABEL
from gpufleet_e2e.support.api import NAMESPACES, Api, pods, workloads
from gpufleet_e2e.support.gpus import Gpus
from gpufleet_e2e.support.install import NAMESPACE as SYSTEM
from gpufleet_e2e.support.install import RELEASE
from gpufleet_e2e.support.manifests import gpuworkload, plain_pod
from gpufleet_e2e.support.measurements import Summary, per_minute, writes
from gpufleet_e2e.support.polling import eventually
from gpufleet_testbed import Cluster, ClusterConfig, repository_root, up

GPUS_PER_NODE = 8
CLUSTER = ClusterConfig(name="bench", network="10.247.0.0/16", nodes=2)
ROUND_SECONDS = 60
PROCESSES = ("gpufleet-agent", "gpufleet-operat")
"""Process names as the kernel truncates them, to fifteen characters."""


class Bench:
    """A namespace on a cluster with gpufleet installed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.api = Api(cluster.kubeconfig)
        self.namespace = f"bench-{secrets.token_hex(3)}"
        admin = config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]  # published without types
        self._core = client.CoreV1Api(admin)

    def install(self) -> None:
        """Installs the chart with its defaults on idle GPUs."""
        gpus = [Gpus(node, GPUS_PER_NODE) for node in self.cluster.nodes]
        chart = str(repository_root() / "charts" / "gpufleet")
        where = ("upgrade", "--install", RELEASE, chart, f"--namespace={SYSTEM}", "--create-namespace", "--wait")
        self.cluster.helm(*where, "--reset-values", "--set=agent.driver.hostPath=/opt/gpufleet/driver", timeout=180)
        # On a reused cluster, running agents still have the previous GPUs.
        for pod in self.api.list(pods(SYSTEM), labelSelector="app.kubernetes.io/component=agent"):
            self.api.delete(f"{pods(SYSTEM)}/{pod['metadata']['name']}", grace=0)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.api.create(NAMESPACES, body)
        eventually(lambda: self._offers(sum(len(one.uuids) for one in gpus)), within=90)
        account = f"{NAMESPACES}/{self.namespace}/serviceaccounts/default"
        eventually(lambda: self.api.get(account), within=20)

    def managed(self, name: str) -> float:
        """Returns the seconds from creating a GPUWorkload until its container runs with a device."""
        began = monotonic()
        self.api.create(workloads(self.namespace), gpuworkload(name))
        took = self._running(f"{WORKLOAD_LABEL}={name}", began)
        self.api.delete(f"{workloads(self.namespace)}/{name}")
        return took

    def plain(self, name: str) -> float:
        """Returns the seconds from creating a pod that requests a device until its container runs with one."""
        body = plain_pod(name, count=1, labels={"bench": name})
        began = monotonic()
        self.api.create(pods(self.namespace), body)
        took = self._running(f"bench={name}", began)
        self.api.delete(f"{pods(self.namespace)}/{name}")
        return took

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

    def _offers(self, count: int) -> None:
        nodes = self.api.list("/api/v1/nodes")
        offered = sum(int(one["status"]["allocatable"].get(RESOURCE, "0")) for one in nodes)
        reported = sum(one.get("status", {}).get("summary", {}).get("healthy", 0) for one in self._telemetry())
        _expect((offered, reported) == (count, count), f"nodes offer {offered}, agents report {reported}, not {count}")


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - like assert, but never disabled
    if not holds:
        raise AssertionError(otherwise)


def _has_devices(pod: Mapping[str, Any]) -> bool:
    return any(
        "running" in status.get("state", {}) and status.get("allocatedResourcesStatus")
        for status in pod.get("status", {}).get("containerStatuses", [])
    )


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
    durations: dict[str, list[float]] = {"gpuworkload": [], "plain pod": []}
    for number in range(rounds):
        # Alternate, so that other load on the machine affects both alike.
        durations["gpuworkload"].append(bench.managed(f"managed-{number}"))
        bench.rest()
        durations["plain pod"].append(bench.plain(f"plain-{number}"))
        bench.rest()
        print(
            f"round {number + 1} of {rounds}: {durations['gpuworkload'][-1]:.2f} s, {durations['plain pod'][-1]:.2f} s"
        )
    idle = bench.writes_at_rest(rest_seconds)
    bench.fill(GPUS_PER_NODE)
    busy = bench.writes_at_rest(rest_seconds)
    return {
        "seconds_to_running": {name: asdict(Summary.of(found)) for name, found in durations.items()},
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
        print(f"  {name:12} p50 {summary['p50']:.2f}  min {summary['min']:.2f}  max {summary['max']:.2f}")
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
