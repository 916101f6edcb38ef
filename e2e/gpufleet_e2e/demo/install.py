"""Installs the chart with helm, as a user would, and waits for telemetry newer than the installation."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from gpufleet_e2e.demo.context import DEVICE_PLUGIN, DRA, SYSTEM_NAMESPACE, WORKLOAD_NAMESPACE, DemoContext, JsonObject
from gpufleet_e2e.proof.contract import RESOURCE
from gpufleet_testbed import repository_root
from gpufleet_testbed.versions import PROJECT_IMAGE

RELEASE = "gpufleet"
DRIVER_IN_NODE = "/opt/gpufleet/driver"
PACKAGES = ("cli", "common", "crds", "nodeagent", "operator")
PRIVILEGED = "pod-security.kubernetes.io/enforce=privileged"


def install(context: DemoContext) -> None:
    """Runs `helm upgrade --install --wait`, then waits for each agent's report and its kubelet's devices.

    Raises:
        ClusterError: helm or kubectl failed; the message contains its output.
        WaitTimeoutError: An agent did not report in time.
    """
    kubectl, terminal = context.cluster.kubectl, context.terminal
    for namespace in (SYSTEM_NAMESPACE, WORKLOAD_NAMESPACE):
        text = kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml").stdout
        kubectl("apply", "-f", "-", stdin=text)
    # The agent mounts the kubelet's plugin folder from the host, which only this pod security level allows.
    kubectl("label", "--overwrite", "namespace", SYSTEM_NAMESPACE, PRIVILEGED)
    words = (*helm_words(repository_root(), context.transport), f"--timeout={context.timeout_seconds:.0f}s")
    terminal.command(f"helm {' '.join(words)}".replace(f"{repository_root()}/", ""))
    _drop_unfinished(context)
    since = datetime.now(UTC)
    context.cluster.helm(*words, timeout=context.timeout_seconds + 30)
    terminal.progress("the chart is installed, agents and operator are available")
    for node in context.cluster.nodes:
        context.collector.wait_for_telemetry(
            node.name, lambda found: fresh(found, since), timeout_seconds=context.timeout_seconds
        )
        terminal.progress(f"GPUTelemetry {node.name} is fresh")
        _wait_until_offered(context, node.name)
    # Only an operator releases the reservations of an earlier demo, and there may have been none until now.
    context.wait_until_free()


def _wait_until_offered(context: DemoContext, node: str) -> None:
    """Waits until the Node object offers as many devices as telemetry reports: kubelets publish it every 10 s.

    With transport DRA, until the agent can give all of them to claims.
    """
    if context.transport == DRA:
        context.collector.wait_for_telemetry(node, serves_claims, timeout_seconds=context.timeout_seconds)
        context.terminal.progress(f"the devices of {node} can be claimed")
        return
    devices = sum(gpu.node == node for gpu in context.fleet().gpus)
    escaped = RESOURCE.replace(".", "\\.")
    path = f"{{.status.allocatable.{escaped}}}"
    limit = f"--timeout={context.timeout_seconds:.0f}s"
    words = ("wait", f"node/{node}", f"--for=jsonpath={path}={devices}", limit)
    context.cluster.kubectl(*words, timeout=context.timeout_seconds + 10)
    context.terminal.progress(f"the kubelet of {node} offers {devices} devices")


def _drop_unfinished(context: DemoContext) -> None:
    """Uninstalls a release that a killed helm left pending, because helm does not upgrade it."""
    here = f"--namespace={SYSTEM_NAMESPACE}"
    asked = context.cluster.helm("status", RELEASE, here, "-o", "json", check=False)
    if asked.returncode == 0 and json.loads(asked.stdout)["info"]["status"].startswith("pending-"):
        context.terminal.progress("an earlier helm was interrupted: removing its pending release")
        # Not the check for active workloads, whose operator may not run.
        words = ("uninstall", RELEASE, here, "--wait", "--no-hooks")
        context.cluster.helm(*words, timeout=context.timeout_seconds + 30)


def helm_words(root: Path, transport: str = DEVICE_PLUGIN) -> tuple[str, ...]:
    """Returns helm's arguments. The build annotation restarts the pods of an earlier demo when the code changed."""
    repository, _, tag = PROJECT_IMAGE.removeprefix("localhost/").rpartition(":")
    build = build_id(root)
    settings = {
        "image.tag": tag,
        "agent.image.repository": repository,
        "operator.image.repository": repository,
        "agent.driver.hostPath": DRIVER_IN_NODE,
        "agent.podAnnotations.build": build,
        "operator.podAnnotations.build": build,
    }
    if transport != DEVICE_PLUGIN:
        settings["transport"] = transport
    # The simulated driver has no device nodes. A later demo on the same agents waits for a report.
    fixed = ("--set=agent.driver.devices=false", "--set=agent.reportSeconds=30")
    sets = (*fixed, *(f"--set-string={key}={value}" for key, value in settings.items()))
    chart = str(root / "charts" / "gpufleet")
    return ("upgrade", "--install", RELEASE, chart, f"--namespace={SYSTEM_NAMESPACE}", *sets, "--wait")


def build_id(root: Path) -> str:
    """Returns a digest of the image's input: its packages and the lock file."""
    digest = hashlib.sha256((root / "uv.lock").read_bytes())
    for folder in PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def serves_claims(telemetry: JsonObject) -> bool:
    """Returns whether the agent can give all of its devices to claims."""
    status = telemetry.get("status", {})
    return status.get("transport") == DRA and not any("withheld" in device for device in status.get("devices", []))


def fresh(telemetry: JsonObject, since: datetime) -> bool:
    """Returns whether the agent has written a status with devices since this moment."""
    status = telemetry.get("status", {})
    observed = status.get("observedAt")
    return bool(status.get("devices")) and observed is not None and datetime.fromisoformat(observed) >= since
