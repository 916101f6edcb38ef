"""The rendered chart, and the operator's pod against the apiserver's pod security check."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from gpufleet_e2e.identities import NAMESPACE, Accounts, Client, JsonObject, assert_allowed, wait_until
from gpufleet_testbed import Cluster, ClusterError, repository_root

CHART = str(repository_root() / "charts" / "gpufleet")

MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
ADOPTION = ["gpufleet-adoption", "gpufleet-adoption-queued-jobs"]

Render = Callable[..., dict[tuple[str, str], JsonObject]]


@pytest.fixture
def render(cluster: Cluster) -> Render:
    """Renders the chart with settings and an additional API version; returns its objects by kind and name."""

    def rendered(*settings: str, api: str = "") -> dict[tuple[str, str], JsonObject]:
        sets = [f"--set={setting}" for setting in settings] + ([f"--api-versions={api}"] if api else [])
        text = cluster.helm("template", "gpufleet", CHART, "--namespace=gpufleet-system", *sets).stdout
        objects = [one for one in yaml.safe_load_all(text) if one]
        return {(one["kind"], one["metadata"]["name"]): one for one in objects}

    return rendered


def pod_of(objects: dict[tuple[str, str], JsonObject], kind: str, name: str) -> Any:
    return objects[kind, name]["spec"]["template"]["spec"]


def crds_of(objects: dict[tuple[str, str], JsonObject]) -> list[JsonObject]:
    return [one for (kind, _), one in objects.items() if kind == "CustomResourceDefinition"]


def kinds(objects: dict[tuple[str, str], JsonObject]) -> set[str]:
    return {kind for kind, _ in objects}


def test_lint_is_clean(cluster: Cluster) -> None:
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", CHART).stdout


def test_default_installation_is_complete(render: Render) -> None:
    names = {kind: sorted(name for some, name in render() if some == kind) for kind in kinds(render())}
    assert names == {
        "CustomResourceDefinition": ["gputelemetries.gpufleet.dev", "gpuworkloads.gpufleet.dev"],
        "DaemonSet": ["gpufleet-agent"],
        "Deployment": ["gpufleet-operator"],
        "Service": ["gpufleet-agent-metrics", "gpufleet-operator-metrics"],
        "ServiceAccount": ["gpufleet-agent", "gpufleet-operator"],
        "ClusterRole": ["gpufleet-agent", "gpufleet-cordon", "gpufleet-edit", "gpufleet-operator", "gpufleet-view"],
        "ClusterRoleBinding": ["gpufleet-agent", "gpufleet-operator"],
        "Role": ["gpufleet-operator"],
        "RoleBinding": ["gpufleet-operator"],
        "ValidatingAdmissionPolicy": [*ADOPTION, "gpufleet-assignments", "gpufleet-own-node", "gpufleet-pods"],
        "ValidatingAdmissionPolicyBinding": [*ADOPTION, "gpufleet-assignments", "gpufleet-own-node", "gpufleet-pods"],
    }


def test_policies_of_adoption_can_be_disabled(render: Render) -> None:
    with_policies = render(api=MUTATING)
    assert sorted(name for kind, name in with_policies if kind == "MutatingAdmissionPolicy") == ADOPTION
    assert sorted(name for kind, name in with_policies if kind == "MutatingAdmissionPolicyBinding") == ADOPTION
    without = render("adoption.mutate=false", api=MUTATING)
    (message,) = [
        one["messageExpression"]
        for one in without["ValidatingAdmissionPolicy", "gpufleet-adoption"]["spec"]["validations"]
        if "schedulingGates" in one["expression"]
    ]
    assert "add spec.schedulingGates" in message
    assert not any(kind.startswith("Mutating") for kind in kinds(without))
    assert ("ValidatingAdmissionPolicy", "gpufleet-adoption") not in render("adoption.requireGate=false")


def test_rendered_crds_are_the_generated_ones(render: Render) -> None:
    generated = {path.stem: yaml.safe_load(path.read_text()) for path in (repository_root() / "crds").glob("*.yaml")}
    for crd in crds_of(render()):
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd == generated[crd["spec"]["names"]["plural"]]
    assert all("annotations" not in crd["metadata"] for crd in crds_of(render("crds.keep=false")))
    assert crds_of(render("crds.enabled=false")) == []


def test_agent_shares_the_host_pid_namespace_by_default(render: Render) -> None:
    for settings, sees in (((), True), (("agent.hostPID=false",), False)):
        assert pod_of(render(*settings), "DaemonSet", "gpufleet-agent")["hostPID"] is sees


@pytest.mark.parametrize(
    ("fitting", "contradicting", "message"),
    [
        ("agent.windowSeconds=2", "agent.windowSeconds=1", "agent.windowSeconds must be at least twice"),
        (
            "operator.staleAfterSeconds=90",
            "operator.staleAfterSeconds=89",
            "operator.staleAfterSeconds must be at least",
        ),
    ],
)
def test_contradicting_values_are_rejected(cluster: Cluster, fitting: str, contradicting: str, message: str) -> None:
    cluster.helm("template", "gpufleet", CHART, f"--set={fitting}")
    with pytest.raises(ClusterError, match=message):
        cluster.helm("template", "gpufleet", CHART, f"--set={contradicting}")


def test_old_kubernetes_is_rejected(cluster: Cluster) -> None:
    cluster.helm("template", "gpufleet", CHART, "--kube-version=1.34.0")
    with pytest.raises(ClusterError, match=r"kubeVersion: >=1\.34\.0-0"):
        cluster.helm("template", "gpufleet", CHART, "--kube-version=1.33.9")


def test_driver_from_the_host_or_from_the_runtime(render: Render) -> None:
    from_host = pod_of(render("agent.driver.hostPath=/opt/driver"), "DaemonSet", "gpufleet-agent")
    (agent,) = from_host["containers"]
    assert {"name": "LD_LIBRARY_PATH", "value": "/opt/gpufleet/driver"} in agent["env"]
    assert {"name": "driver", "mountPath": "/opt/gpufleet/driver", "readOnly": True} in agent["volumeMounts"]
    assert {"name": "driver", "hostPath": {"path": "/opt/driver", "type": "Directory"}} in from_host["volumes"]
    injected = pod_of(render("agent.runtimeClassName=nvidia"), "DaemonSet", "gpufleet-agent")
    (agent,) = injected["containers"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in agent["env"]
    assert injected["runtimeClassName"] == "nvidia"
    assert "driver" not in {volume["name"] for volume in injected["volumes"]}


def test_cdi_strategy_mounts_its_directory_and_the_driver_root(render: Render) -> None:
    usual = pod_of(render(), "DaemonSet", "gpufleet-agent")
    assert not {"cdi", "driver-root"} & {volume["name"] for volume in usual["volumes"]}
    settings = ["agent.deviceListStrategies={cdi-cri,envvar}", "agent.driverRoot=/run/nvidia/driver"]
    pod = pod_of(render(*settings, "agent.passDeviceSpecs=true"), "DaemonSet", "gpufleet-agent")
    (agent,) = pod["containers"]
    assert {
        "--device-list-strategy=cdi-cri,envvar",
        "--pass-device-specs",
        "--cdi-root=/var/run/cdi",
        "--cdi-kind=gpufleet.dev/gpu",
        "--driver-root=/run/nvidia/driver",
    } <= set(agent["args"])
    assert {"name": "cdi", "mountPath": "/var/run/cdi"} in agent["volumeMounts"]
    assert {"name": "cdi", "hostPath": {"path": "/var/run/cdi", "type": "DirectoryOrCreate"}} in pod["volumes"]
    assert {"name": "driver-root", "mountPath": "/run/nvidia/driver", "readOnly": True} in agent["volumeMounts"]
    same = ["agent.driver.hostPath=/opt/gpufleet/driver", "agent.driverRoot=/opt/gpufleet/driver"]
    (agent,) = pod_of(render(*same), "DaemonSet", "gpufleet-agent")["containers"]
    assert [mount["name"] for mount in agent["volumeMounts"]].count("driver") == 1
    assert "driver-root" not in {mount["name"] for mount in agent["volumeMounts"]}


def test_faults_are_stored_on_the_node_by_default(render: Render) -> None:
    pod = pod_of(render(), "DaemonSet", "gpufleet-agent")
    (agent,) = pod["containers"]
    assert "--state-dir=/var/lib/gpufleet" in agent["args"]
    assert {"name": "state", "mountPath": "/var/lib/gpufleet"} in agent["volumeMounts"]
    assert {"name": "state", "hostPath": {"path": "/var/lib/gpufleet", "type": "DirectoryOrCreate"}} in pod["volumes"]
    assert agent["securityContext"]["readOnlyRootFilesystem"] is True
    pod = pod_of(render("agent.stateDir="), "DaemonSet", "gpufleet-agent")
    (agent,) = pod["containers"]
    assert "--state-dir=" in agent["args"]
    assert "state" not in {entry["name"] for entry in (*agent["volumeMounts"], *pod["volumes"])}


def test_mig_needs_a_capability_and_whole_gpus_do_not(render: Render) -> None:
    (usual,) = pod_of(render(), "DaemonSet", "gpufleet-agent")["containers"]
    assert usual["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert usual["securityContext"]["allowPrivilegeEscalation"] is False
    (agent,) = pod_of(render("agent.migStrategy=single"), "DaemonSet", "gpufleet-agent")["containers"]
    assert "--mig-strategy=single" in agent["args"]
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert {"name": "NVIDIA_MIG_MONITOR_DEVICES", "value": "all"} in agent["env"]


def test_settings_reach_agent_and_operator(render: Render) -> None:
    objects = render("resource=nvidia.com/gpu", "agent.extraArgs={--sample-seconds=2}", "policy.requireGate=true")
    for kind, name in (("DaemonSet", "gpufleet-agent"), ("Deployment", "gpufleet-operator")):
        (container,) = pod_of(objects, kind, name)["containers"]
        assert "--resource=nvidia.com/gpu" in container["args"]
    (agent,) = pod_of(objects, "DaemonSet", "gpufleet-agent")["containers"]
    assert agent["args"][-1] == "--sample-seconds=2"
    policy = objects["ValidatingAdmissionPolicy", "gpufleet-require-gate"]["spec"]
    assert '["nvidia.com/gpu","gpufleet.dev/gpu-shared"].exists' in policy["matchConditions"][0]["expression"]
    unshared = render("sharedResource=", "agent.sharedSlots=4")
    for kind, name in (("DaemonSet", "gpufleet-agent"), ("Deployment", "gpufleet-operator")):
        (container,) = pod_of(unshared, kind, name)["containers"]
        assert {"--shared-resource=", "--shared-slots=4"} <= set(container["args"])


def test_agent_policy_names_the_agents_account(render: Render) -> None:
    objects = render("fullnameOverride=other")
    policy = objects["ValidatingAdmissionPolicy", "other-own-node"]["spec"]
    account = pod_of(objects, "DaemonSet", "other-agent")["serviceAccountName"]
    assert policy["matchConditions"][0]["expression"].endswith(f"'system:serviceaccount:gpufleet-system:{account}'")


def test_optional_parts_are_optional(render: Render) -> None:
    assert not {"ServiceMonitor", "PodMonitor"} & kinds(render())
    assert "ServiceMonitor" in kinds(render("metrics.serviceMonitor.enabled=true"))
    mutating = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
    off = ("policy.enabled=false", "adoption.mutate=false", "adoption.requireGate=false")
    assert not any("Policy" in kind for kind in kinds(render(*off, api=mutating)))
    assert "MutatingAdmissionPolicy" in kinds(render(off[0], off[2], api=mutating)), "each has its own value"
    assert "ValidatingAdmissionPolicy" in kinds(render(*off[:2], api=mutating)), "each has its own value"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("agent.sampelSeconds=1", "'sampelSeconds' not allowed"),
        ("agnet.port=1", "'agnet' not allowed"),
        ("operator.port=http", "operator/port"),
        ("resource=gpu", "resource"),
    ],
)
def test_wrong_value_is_rejected_by_name(render: Render, setting: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        render(setting)


def test_operator_meets_the_restricted_level(render: Render, admin: Client, accounts: Accounts) -> None:
    path, key = f"/api/v1/namespaces/{NAMESPACE}", "pod-security.kubernetes.io/enforce"
    spec = {**pod_of(render(), "Deployment", "gpufleet-operator"), "serviceAccountName": "user"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    loose = {**pod, "spec": {**spec, "securityContext": {**spec["securityContext"], "runAsNonRoot": False}}}

    def rejected() -> bool:
        return "violates PodSecurity" in admin.create(f"{path}/pods", loose).message

    assert_allowed(admin.patch(path, {"metadata": {"labels": {key: "restricted"}}}, dry_run=None))
    try:
        wait_until(rejected, "the level is in force")
        assert_allowed(admin.create(f"{path}/pods", pod))
    finally:
        assert_allowed(admin.patch(path, {"metadata": {"labels": {key: None}}}, dry_run=None))
        # Pods of other tests in this namespace do not meet it, and admission reads labels a moment later.
        wait_until(lambda: not rejected(), "the level is no longer in force")
