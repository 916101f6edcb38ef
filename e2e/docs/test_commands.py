"""The commands of the operations pages and of the reference, on the cluster: each exits with 0."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml

from gpufleet_e2e.support.api import TELEMETRY, JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IMAGE, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import PROJECT_IMAGE
from gpufleet_testing.reference.shell import RUN_PAGES, comparable, shell_commands, shown_outputs

READY_SECONDS = 60
COMMAND_SECONDS = 150
UNTIL = "2026-12-01T18:00:00Z"
CORDONED = "GPU-5d8c6a3e-7f5f-4b7e-9d8e-2f6f7a1c0b11"


@dataclass(frozen=True)
class Shell:
    """bash in a folder with manifests, whose kubectl has the namespace of the test.

    `words` are placeholders and names of the pages, and what they are on this cluster.
    """

    folder: Path
    environment: Mapping[str, str]
    words: Mapping[str, str]

    def run(self, text: str) -> str:
        """Runs a command and returns its output. A filter at its end may find nothing; names of columns are kept."""
        known = sorted(self.words, key=len, reverse=True)
        command = re.sub(rf"\b({'|'.join(map(re.escape, known))})\b(?!:\.)", lambda found: self.words[found[0]], text)
        script = f"{command}\nexit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(namespace: TestNamespace, fleet: Fleet, tmp_path: Path) -> Iterator[Shell]:
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("docs", node=node))
    namespace.wait_ready("docs")
    environment = CommandLine(fleet.cluster).environment()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(Path(environment["KUBECONFIG"]).read_bytes())
    environment["KUBECONFIG"] = str(kubeconfig)
    (tmp_path / "workload.yaml").write_text(yaml.safe_dump(gpuworkload("planned")))
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(deployment()))
    uuids = fleet.gpus[node].uuids
    free = next(uuid for uuid in uuids if uuid not in namespace.reservation("docs")["devices"])
    made = Shell(
        tmp_path,
        environment,
        {
            "NODE": node,
            "node-1": node,
            "node-1/3": f"{node}/{uuids.index(free)}",
            "INDEX": str(uuids.index(free)),
            "AGENT-POD": fleet.agent_pod(node)["metadata"]["name"],
            "NAMESPACE": namespace.name,
            "NAME": "docs",
            "POD": namespace.pod("docs")["metadata"]["name"],
            "train -n ml": f"docs -n {namespace.name}",
            "DIR": "saved",
            "image: busybox": f"image: {IMAGE}",
            "YOUR-REGISTRY/gpufleet-cli:0.1.0": PROJECT_IMAGE,
            CORDONED: free,
            UNTIL: f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
        },
    )
    made.run(f"kubectl config set-context --current --namespace={namespace.name}")
    yield made
    fleet.api.patch(f"{TELEMETRY}/{node}", {"spec": {"cordoned": []}})
    made.run("kubectl delete clusterrolebinding hardware-cordon gpu-viewer gpu-doctor --ignore-not-found")
    made.run("kubectl delete rolebinding gpu-viewer --namespace=gpufleet-system --ignore-not-found")
    made.run("kubectl delete clusterrole gpu-doctor --ignore-not-found")


def test_every_command_of_the_pages_works(shell: Shell, namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: placeholders become names of this cluster, and the busybox image the one that it has."""
    for page in RUN_PAGES:
        printed = set[str]()
        for command in shell_commands(page):
            if command.reason:
                continue
            prepare = PREPARE.get((Path(page).stem, command.text[: len("kubectl wait")]))
            if prepare is not None:
                prepare(shell, namespace)
            output = shell.run(command.text)
            print(f"{command}\n{output[:800]}")
            printed |= {comparable(line) for line in output.splitlines()}
        assert [line for line in shown_outputs(page) if comparable(line) not in printed] == [], page
    eventually(lambda: _operator_is_ready(fleet), within=READY_SECONDS)


def deployment() -> JsonObject:
    """Builds a Deployment that knows nothing of gpufleet."""
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": pod_spec()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def _deploy(shell: Shell, namespace: TestNamespace) -> None:
    shell.run("kubectl apply -f deployment.yaml")
    assert namespace.exists("web")


def _create_train(shell: Shell, namespace: TestNamespace) -> None:
    """The workload into which the page on GitOps merges a variable; own-pods has another of this name."""
    shell.run("kubectl delete gpuworkload train")
    namespace.apply(gpuworkload("train", template=pod_spec(restartPolicy="Never")))


def _request_vendors_gpu(shell: Shell, _: TestNamespace) -> None:
    """A Deployment as for NVIDIA's device plugin."""
    body = deployment()
    limits = {"nvidia.com/gpu": 1}
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": limits}
    (shell.folder / "deployment.yaml").write_text(yaml.safe_dump(body))


def _drain(shell: Shell, _: TestNamespace) -> None:
    shell.run('kubectl gpufleet drain node-1/3 --reason "board replacement"')


PREPARE: Final[Mapping[tuple[str, str], Callable[[Shell, TestNamespace], None]]] = {
    ("own-pods", "kubectl patc"): _deploy,
    ("gitops", "kubectl appl"): _create_train,
    ("gpu-maintenance", "kubectl wait"): _drain,
    ("cli", "gpufleet con"): _request_vendors_gpu,
}
"""What the text of a page does, or takes for granted, before a command; by the page and the command's beginning."""


def _operator_is_ready(fleet: Fleet) -> None:
    statuses = fleet.operator_pod()["status"].get("containerStatuses", [])
    assert [one["ready"] for one in statuses] == [True]
