"""The chart on a real apiserver: every object of every platform, its checks, and upgrades with work on the cluster."""

import json
import os
import shutil
import stat
from collections.abc import Iterator

import pytest
import yaml

from gpufleet_e2e.support.api import NAMESPACES, JsonObject
from gpufleet_e2e.support.chart import MUTATING, PATH, Chart
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE, RELEASE, REPOSITORY, TAG
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_simgpu.files import STATE
from gpufleet_testbed import ClusterError

HERE = f"--namespace={NAMESPACE}"
EVERYTHING: dict[str, object] = {
    "fullnameOverride": "dry-run", "transport": "PerNode", "policy.requireGate": True, "networkPolicy.enabled": True,
    "watchNamespaces": ["default"],
    "rbac.telemetryViewers": ["system:authenticated"], "metrics.dashboard.enabled": True,
    "podSecurity.createNamespace": True, "commonLabels": {"team": "ml"}, "commonAnnotations": {"owner": "ml"},
}  # fmt: skip
FOREIGN = ("SecurityContextConstraints", "ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds of platforms and of the Prometheus Operator, which the test cluster does not have."""


@pytest.mark.parametrize("platform", ["nvidia-runtime", "cdi", "driver-container", "gke", "bottlerocket", "openshift"])
def test_every_object_of_a_platform_is_accepted(fleet: Fleet, chart: Chart, platform: str) -> None:
    values = {**EVERYTHING, "platform": platform}
    rendered = {**chart.render(values, api=MUTATING), **chart.render(values, api=MUTATING, hooks=True)}
    # The CRDs are installed, and the same for all platforms.
    own = [one for key, one in rendered.items() if key[0] not in (*FOREIGN, "CustomResourceDefinition")]
    # A dry run does not store the ServiceAccount of the test's pod.
    text = yaml.safe_dump_all(own).replace("serviceAccountName: dry-run-test", "serviceAccountName: default")
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    done = fleet.cluster.kubectl(*words, stdin=text)
    assert len(done.stdout.splitlines()) == len(own)


def test_helm_test_confirms_one_pod(fleet: Fleet) -> None:
    done = fleet.cluster.helm("test", RELEASE, HERE, "--logs", "--timeout=90s", timeout=120)
    assert "telemetry is fresh" in done.stdout
    assert "a kubelet offers gpufleet.dev/gpu" in done.stdout
    assert " has GPU-" in done.stdout
    left = fleet.cluster.kubectl("get", "gpuworkloads,serviceaccounts", HERE, "-o", "name").stdout
    assert "gpufleet-test" not in left


def test_namespace_that_rejects_the_agent_is_named(fleet: Fleet) -> None:
    """`helm install` asks the apiserver, `helm template` does not."""
    label = {"pod-security.kubernetes.io/enforce": "baseline"}
    name = "hardened"
    fleet.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}})
    try:
        words = ("install", "other", PATH, f"--namespace={name}", "--dry-run=server")
        with pytest.raises(ClusterError, match=f"kubectl label --overwrite namespace {name} .*=privileged"):
            fleet.cluster.helm(*words)
        assert (
            "kind: DaemonSet" in fleet.cluster.helm(*words, "--set=podSecurity.check=false", "--take-ownership").stdout
        )
    finally:
        fleet.api.delete(f"{NAMESPACES}/{name}")


def container(namespace: TestNamespace, name: str) -> tuple[str, str, int]:
    pod = namespace.pod(name)
    (status,) = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], status["containerID"], status["restartCount"]


def test_upgrade_and_rollback_touch_no_container(namespace: TestNamespace, fleet: Fleet) -> None:
    """Agent and operator are replaced twice; what runs, what waits and what is reserved stays."""
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("runs", node=node, replicas=1), gpuworkload("waits", node="nowhere"))
    namespace.wait_ready("runs")
    namespace.wait_condition("waits", "Placed", "False", "NoDevicesAvailable")
    running, waiting = container(namespace, "runs"), namespace.pod("waits")["metadata"]["uid"]
    reserved = namespace.reservation("runs")
    crds = _crds(fleet)

    def check(new: str) -> None:
        assert container(namespace, "runs") == running
        assert namespace.pod("waits")["metadata"]["uid"] == waiting
        assert namespace.reservation("runs") == reserved
        namespace.wait_ready("runs")
        assert _crds(fleet) == crds
        namespace.apply(gpuworkload(new, node=node))
        namespace.wait_ready(new)

    before = fleet.operator_pod()["metadata"]["uid"]
    try:
        fleet.install(values={"operator": {**_operator(fleet), "logLevel": "debug"}, "health": {"ignoreXids": [43]}})
        assert fleet.operator_pod()["metadata"]["uid"] != before
        check("after-upgrade")
        fleet.cluster.helm("rollback", RELEASE, HERE, "--wait", "--timeout=120s", timeout=150)
        check("after-rollback")
    finally:
        fleet.install()


def _operator(fleet: Fleet) -> JsonObject:
    values = json.loads(fleet.cluster.helm("get", "values", RELEASE, HERE, "-o", "json").stdout)
    found: JsonObject = values["operator"]
    return found


def _crds(fleet: Fleet) -> list[JsonObject]:
    names = ("gpuworkloads.gpufleet.dev", "gputelemetries.gpufleet.dev", "gpudemands.gpufleet.dev")
    found = json.loads(fleet.cluster.kubectl("get", "crd", *names, "-o", "json").stdout)["items"]
    return [one["spec"] for one in found]


def test_uninstallation_is_refused_while_work_is_active(namespace: TestNamespace, fleet: Fleet, chart: Chart) -> None:
    """The hook is started by hand: helm marks a release whose uninstallation failed, and then does not upgrade it."""
    namespace.apply(gpuworkload("runs"), gpuworkload("waits", node="nowhere"), gpuworkload("idle", suspend=True))
    namespace.wait_ready("runs")
    namespace.wait_condition("waits", "Placed", "False", "NoDevicesAvailable")
    refused = _uninstallation(fleet, chart)
    assert f"{namespace.name}/runs: 1 pod runs, 0 pods wait" in refused
    assert f"{namespace.name}/waits: 0 pods run, 1 pod waits" in refused
    assert f"{namespace.name}/idle" not in refused
    assert f"helm rollback {RELEASE} 1 {HERE.replace('=', ' ')}" in refused
    namespace.delete("runs", "waits")
    eventually(lambda: _check_possible(fleet, chart, namespace), within=60, every=1)


def _check_possible(fleet: Fleet, chart: Chart, namespace: TestNamespace) -> None:
    said = _uninstallation(fleet, chart)
    assert namespace.name not in said, said


def _uninstallation(fleet: Fleet, chart: Chart) -> str:
    """Runs the hook and returns its output."""
    image = {"operator.image.repository": REPOSITORY, "image.tag": TAG}
    hooks = {key: one for key, one in chart.render(image, hooks=True).items() if "uninstall" in key[1]}
    text = yaml.safe_dump_all(list(hooks.values()))
    fleet.cluster.kubectl("apply", "-f", "-", stdin=text)
    job = f"job/{RELEASE}-uninstall"
    try:
        eventually(lambda: _ended(fleet, job), within=40)
        return fleet.cluster.kubectl("logs", HERE, job).stdout
    finally:
        fleet.cluster.kubectl("delete", "--wait", "-f", "-", stdin=text)


def _ended(fleet: Fleet, job: str) -> None:
    status = json.loads(fleet.cluster.kubectl("get", HERE, job, "-o", "json").stdout)["status"]
    assert status.get("failed") or status.get("succeeded"), status


@pytest.fixture
def driver_root(fleet: Fleet) -> Iterator[str]:
    """A root file system like that of a driver container on each node: the library in lib64, and device nodes."""
    made = []
    for node in fleet.cluster.nodes:
        (node.driver_dir / "dev").mkdir(exist_ok=True)
        # It replaces /dev of the agent, whose libraries read random numbers.
        for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
            os.mknod(node.driver_dir / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        library = node.driver_dir / "lib64"
        library.mkdir(exist_ok=True)
        for name in ("libnvidia-ml.so.1", STATE):
            (library / name).symlink_to(f"../{name}")
        made += [node.driver_dir / "dev", library]
    yield "/opt/gpufleet/driver"
    fleet.install()
    for folder in made:
        shutil.rmtree(folder)


def test_agent_reads_the_driver_of_a_driver_container(namespace: TestNamespace, fleet: Fleet, driver_root: str) -> None:
    """Mechanism: the library is searched below the root, and nothing depends on NVIDIA_VISIBLE_DEVICES."""
    values = {"platform": "driver-container"}
    fleet.install(agent={"driver": {}, "driverRoot": driver_root}, values=values)
    pod = fleet.agent_pod(fleet.nodes[0])["spec"]["containers"][0]
    assert pod["securityContext"]["privileged"] is True
    assert "NVIDIA_VISIBLE_DEVICES" not in {one["name"] for one in pod["env"]}
    assert f"--driver-library-root={driver_root}" in pod["args"]
    namespace.apply(gpuworkload("one"))
    namespace.wait_ready("one")
