"""Collects evidence on workloads: objects, exec and logs from the apiserver, and the lists of kubelets."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from gpufleet_e2e.proof import assemble, contract, objects
from gpufleet_e2e.proof.api_reader import ApiReader
from gpufleet_e2e.proof.assemble import ContainerReading, Readings
from gpufleet_e2e.proof.compare import CHECKED_SOURCES, incomplete
from gpufleet_e2e.proof.containers import Containers
from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.evidence import FleetEvidence, Holding, Source, WorkloadEvidence
from gpufleet_e2e.proof.podresources import list_pod_resources

RETRY_SECONDS = 0.5

MAX_EXECS = 4
"""Containers that are read at the same time."""


class EvidenceCollector(ApiReader):
    """An ApiReader that also reads containers and kubelets.

    Args:
        kubeconfig: Kubeconfig of a user who may read everything and exec.
        sockets: Path of each kubelet's PodResources socket, by node name.
        resource: The extended resource of whole devices.
        containers: Runs commands in containers; default with this kubeconfig.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        sockets: Mapping[str, Path],
        resource: str = contract.RESOURCE,
        containers: Containers | None = None,
    ) -> None:
        super().__init__(kubeconfig)
        self._containers = containers or Containers(self._client)
        self._sockets = dict(sockets)
        self._resource = resource

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The sources that must agree here: before Kubernetes 1.36, the kubelet's pod status is off by default."""
        has_status = self.kubernetes() >= contract.POD_STATUS_SINCE
        return tuple(source for source in CHECKED_SOURCES if has_status or source is not Source.POD_STATUS)

    def holdings(self) -> tuple[Holding, ...]:
        """Reads the devices of every container from every kubelet. Raises EvidenceError when one does not respond."""
        found = [one for node, socket in self._sockets.items() for one in list_pod_resources(node, socket)]
        if all(one.resource != contract.DRIVER for one in found):
            return tuple(found)
        claims = self.claim_evidence()
        return tuple(map(claims.resolve, found))

    def fleet(self) -> FleetEvidence:
        """Reads all GPUs and all holdings."""
        return assemble.fleet(self.telemetry(), self.holdings())

    def evidence(self, namespace: str, name: str) -> WorkloadEvidence:
        """Reads all sources on one workload's devices; a source that cannot be read contains the reason."""
        workload = self.workload(namespace, name)
        pods = self.pods(namespace, f"{contract.WORKLOAD_LABEL}={name}")
        containers = self._read_containers(workload, pods)
        return assemble.workload(
            Readings(
                workload,
                pods,
                self.telemetry(),
                self.holdings(),
                containers,
                self._resource,
                claims=self.claim_evidence() if any(pod["spec"].get("resourceClaims") for pod in pods) else None,
                pod_status=Source.POD_STATUS in self.sources,
            )
        )

    def complete(self, namespace: str, name: str, *, timeout_seconds: float) -> WorkloadEvidence:
        """Reads the evidence until every source has an answer, or the time is over.

        A kubelet lists devices before the container runs, and writes pod status and logs later: missing answers are
        retried. A wrong answer is returned immediately.
        """
        retrying = Retrying(
            retry=retry_if_result(incomplete),
            stop=stop_after_delay(timeout_seconds),
            wait=wait_fixed(RETRY_SECONDS),
            retry_error_callback=_last,
        )
        return retrying(self.evidence, namespace, name)

    def environment(self, namespace: str, pod: str, container: str) -> dict[str, str]:
        """Reads the environment of the container's first process. Raises EvidenceError when it cannot be read."""
        return objects.environment(self._containers.run(namespace, pod, container, "cat", "/proc/1/environ"))

    def _read_containers(self, workload: Mapping[str, Any], pods: list[dict[str, Any]]) -> dict[str, ContainerReading]:
        namespace = workload["metadata"]["namespace"]
        with_log = "distribution" in workload["spec"]
        live = {pod["metadata"]["name"]: pod for pod in assemble.live_pods(pods)}

        def read(pod: str) -> ContainerReading:
            container = assemble.container_of(workload, live[pod])
            try:
                variables = self.environment(namespace, pod, container)
                log = self._containers.log(namespace, pod, container) if with_log else ""
            except EvidenceError as error:
                return ContainerReading(None, problem=str(error))
            return ContainerReading(variables, log=log)

        with ThreadPoolExecutor(MAX_EXECS) as pool:
            return dict(zip(live, pool.map(read, live), strict=True))


def _last(state: RetryCallState) -> WorkloadEvidence:
    if state.outcome is None:  # tenacity sets it before it stops
        raise AssertionError("stopped before the first result")
    evidence: WorkloadEvidence = state.outcome.result()
    return evidence
