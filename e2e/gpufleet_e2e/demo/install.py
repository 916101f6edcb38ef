"""Installs the chart with helm, as a user would, and waits for telemetry that is newer than the installation."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_e2e.demo.context import SYSTEM_NAMESPACE, WORKLOAD_NAMESPACE, JsonObject, Stage
from gpufleet_e2e.proof.contract import RESOURCE
from gpufleet_testbed import repository_root
from gpufleet_testbed.versions import PROJECT_IMAGE

RELEASE = "gpufleet"
DRIVER_IN_NODE = "/opt/gpufleet/driver"
PACKAGES = ("cli", "common", "crds", "nodeagent", "operator")
PRIVILEGED = "pod-security.kubernetes.io/enforce=privileged"


def install(stage: Stage) -> None:
    """`helm upgrade --install --wait`, then wait until each agent has reported since and its kubelet offers devices.

    Raises:
        ClusterError: helm or kubectl failed; the message has its words.
        WaitTimeoutError: an agent did not report in time.
    """
    kubectl, screen = stage.cluster.kubectl, stage.screen
    for namespace in (SYSTEM_NAMESPACE, WORKLOAD_NAMESPACE):
        text = kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml").stdout
        kubectl("apply", "-f", "-", stdin=text)
    # The agent mounts the kubelet's plugin folder from the host, which only this level of pod security allows.
    kubectl("label", "--overwrite", "namespace", SYSTEM_NAMESPACE, PRIVILEGED)
    words = (*helm_words(repository_root()), f"--timeout={stage.timeout_seconds:.0f}s")
    screen.command(f"helm {' '.join(words)}".replace(f"{repository_root()}/", ""))
    _drop_unfinished(stage)
    since = datetime.now(UTC)
    stage.cluster.helm(*words, timeout=stage.timeout_seconds + 30)
    screen.progress("the chart is installed, agents and operator are available")
    for node in stage.cluster.nodes:
        stage.witness.wait_for_telemetry(
            node.name, lambda found: fresh(found, since), timeout_seconds=stage.timeout_seconds
        )
        screen.progress(f"GPUTelemetry {node.name} is fresh")
        _wait_until_offered(stage, node.name)
    # Only an operator takes back what an earlier demo had reserved, and perhaps there was none until now.
    stage.wait_until_free()


def _wait_until_offered(stage: Stage, node: str) -> None:
    """Wait until the Node object counts as many devices as telemetry: kubelets publish it every 10 s only."""
    devices = sum(gpu.node == node for gpu in stage.fleet().gpus)
    escaped = RESOURCE.replace(".", "\\.")
    path = f"{{.status.allocatable.{escaped}}}"
    limit = f"--timeout={stage.timeout_seconds:.0f}s"
    words = ("wait", f"node/{node}", f"--for=jsonpath={path}={devices}", limit)
    stage.cluster.kubectl(*words, timeout=stage.timeout_seconds + 10)
    stage.screen.progress(f"the kubelet of {node} offers {devices} devices")


def _drop_unfinished(stage: Stage) -> None:
    """Uninstall a release that a killed helm left half done: helm itself refuses to touch it."""
    here = f"--namespace={SYSTEM_NAMESPACE}"
    asked = stage.cluster.helm("status", RELEASE, here, "-o", "json", check=False)
    if asked.returncode == 0 and json.loads(asked.stdout)["info"]["status"].startswith("pending-"):
        stage.screen.progress("an earlier helm was interrupted: its unfinished release is removed first")
        stage.cluster.helm("uninstall", RELEASE, here, "--wait", timeout=stage.timeout_seconds + 30)


def helm_words(root: Path) -> tuple[str, ...]:
    """The arguments of helm. The build's annotation makes pods of an earlier demo start again when the code changed."""
    repository, _, tag = PROJECT_IMAGE.rpartition(":")
    build = build_id(root)
    settings = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": "IfNotPresent",
        "agent.driver.hostPath": DRIVER_IN_NODE,
        "agent.podAnnotations.build": build,
        "operator.podAnnotations.build": build,
    }
    sets = tuple(f"--set-string={key}={value}" for key, value in settings.items())
    chart = str(root / "charts" / "gpufleet")
    return ("upgrade", "--install", RELEASE, chart, f"--namespace={SYSTEM_NAMESPACE}", *sets, "--wait")


def build_id(root: Path) -> str:
    """A digest of what the image is made of: the packages in it and the lock file."""
    digest = hashlib.sha256((root / "uv.lock").read_bytes())
    for folder in PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def fresh(telemetry: JsonObject, since: datetime) -> bool:
    """Whether the agent has written a status with devices after this moment."""
    status = telemetry.get("status", {})
    observed = status.get("observedAt")
    return bool(status.get("devices")) and observed is not None and datetime.fromisoformat(observed) >= since
