"""The output of `python -m gpufleet_testbed status`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.config import Provider


@dataclass(frozen=True)
class Status:
    """The state of a running cluster."""

    provider: Provider
    kubernetes: str
    """Minor version of Kubernetes."""
    nodes: Mapping[str, bool]
    """Whether each node is Ready."""
    components: Mapping[str, str]
    """State of each component: `running`, or its exit status."""
    kubeconfig: Path
    log_dir: Path
    owner: int | None
    """PID of the process with which the cluster ends; None when it lives until `down`."""
    started: str
    """Time in UTC, RFC 3339."""

    @property
    def healthy(self) -> bool:
        """Whether every node is Ready and every component runs."""
        return all(self.nodes.values()) and all(state == "running" for state in self.components.values())

    def __str__(self) -> str:
        until = f"until process {self.owner} ends" if self.owner else "until `down`"
        lines = [f"provider    {self.provider}, since {self.started}, {until}", f"kubernetes  {self.kubernetes}"]
        lines += [f"{name:<11} {'Ready' if ready else 'NotReady'}" for name, ready in self.nodes.items()]
        lines += [f"{name}: {state}" for name, state in self.components.items() if state != "running"]
        lines += [f"kubeconfig  {self.kubeconfig}", f"logs        {self.log_dir}"]
        return "\n".join(lines)
