"""Gathers all that is said about a workload: objects by the official client, exec and logs by kubectl, kubelets."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from gpufleet_e2e.proof import assemble, contract, objects
from gpufleet_e2e.proof.api_reader import ApiReader
from gpufleet_e2e.proof.assemble import ContainerReading, Readings
from gpufleet_e2e.proof.compare import incomplete
from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.evidence import FleetEvidence, Holding, WorkloadEvidence
from gpufleet_e2e.proof.podresources import list_pod_resources

ASK_AGAIN_SECONDS = 0.5

EXEC_AT_ONCE = 4
"""kubectl processes at a time: each costs about a tenth of a second of one core."""


class Kubectl(Protocol):
    """Runs kubectl as administrator and returns what it prints."""

    def __call__(self, *arguments: str) -> str:
        """Raise EvidenceError with kubectl's own words when it fails or hangs."""


class EvidenceCollector(ApiReader):
    """An ApiReader that also asks containers and kubelets.

    Args:
        kubeconfig: of a user who may read everything and exec.
        kubectl: runs it with this kubeconfig.
        sockets: per node name, the path of its kubelet's PodResources socket as seen from here.
        resource: the extended resource that means one device.
    """

    def __init__(
        self, *, kubeconfig: Path, kubectl: Kubectl, sockets: Mapping[str, Path], resource: str = contract.RESOURCE
    ) -> None:
        super().__init__(kubeconfig)
        self._kubectl = kubectl
        self._sockets = dict(sockets)
        self._resource = resource

    def holdings(self) -> tuple[Holding, ...]:
        """What every kubelet says about every container. Raises EvidenceError when one doesn't answer."""
        return tuple(one for node, socket in self._sockets.items() for one in list_pod_resources(node, socket))

    def fleet(self) -> FleetEvidence:
        """Every GPU and every holding, now."""
        return assemble.fleet(self.telemetry(), self.holdings())

    def evidence(self, namespace: str, name: str) -> WorkloadEvidence:
        """All that is said about one workload's devices, now. A source that can't be read says why instead."""
        workload = self.workload(namespace, name)
        pods = self.pods(namespace, f"{contract.WORKLOAD_LABEL}={name}")
        containers = self._ask_containers(workload, pods)
        return assemble.workload(
            Readings(workload, pods, self.telemetry(), self.holdings(), containers, self._resource)
        )

    def complete(self, namespace: str, name: str, *, timeout_seconds: float) -> WorkloadEvidence:
        """The evidence as soon as every source has spoken, or as it is when the time is over.

        A kubelet lists devices before the container runs, and writes pod status and logs a moment after: silence is
        waited for here. A wrong word is returned at once.
        """
        asked = Retrying(
            retry=retry_if_result(incomplete),
            stop=stop_after_delay(timeout_seconds),
            wait=wait_fixed(ASK_AGAIN_SECONDS),
            retry_error_callback=_last,
        )
        return asked(self.evidence, namespace, name)

    def environment(self, namespace: str, pod: str, container: str) -> dict[str, str]:
        """The environment of the container's first process. Raises EvidenceError when kubectl can't tell."""
        where = (f"--namespace={namespace}", pod, f"--container={container}")
        return objects.environment(self._kubectl("exec", *where, "--", "cat", "/proc/1/environ"))

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What the container printed. Raises EvidenceError when kubectl can't tell."""
        return self._kubectl("logs", f"--namespace={namespace}", pod, f"--container={container}")

    def _ask_containers(self, workload: Mapping[str, Any], pods: list[dict[str, Any]]) -> dict[str, ContainerReading]:
        namespace, container = workload["metadata"]["namespace"], assemble.container_of(workload)
        with_log = "distribution" in workload["spec"]
        names = [pod["metadata"]["name"] for pod in assemble.live_pods(pods)]

        def ask(pod: str) -> ContainerReading:
            try:
                variables = self.environment(namespace, pod, container)
                log = self.log(namespace, pod, container) if with_log else ""
            except EvidenceError as error:
                return ContainerReading(None, problem=str(error))
            return ContainerReading(variables, log=log)

        with ThreadPoolExecutor(EXEC_AT_ONCE) as pool:
            return dict(zip(names, pool.map(ask, names), strict=True))


def _last(state: RetryCallState) -> WorkloadEvidence:
    if state.outcome is None:  # tenacity sets it before it stops
        raise AssertionError("stopped before the first answer")
    evidence: WorkloadEvidence = state.outcome.result()
    return evidence
