"""The rendered chart: what is installed, and what values change."""

import pytest
import yaml

from gpufleet_e2e.support.chart import MUTATING, PATH, Chart, Objects, kinds
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_testbed import Cluster, ClusterError, repository_root

ADOPTION = ["gpufleet-adoption", "gpufleet-adoption-queued-jobs"]


def crds_of(objects: Objects) -> list[dict[str, dict[str, dict[str, str]]]]:
    return [one for (kind, _), one in objects.items() if kind == "CustomResourceDefinition"]


def names(objects: Objects) -> dict[str, list[str]]:
    return {kind: sorted(name for some, name in objects if some == kind) for kind in kinds(objects)}


def test_lint_is_clean(cluster: Cluster) -> None:
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", PATH).stdout


def test_default_installation_is_complete(chart: Chart) -> None:
    policies = [*ADOPTION, "gpufleet-assignments", "gpufleet-own-lease", "gpufleet-own-node", "gpufleet-pods"]
    assert names(chart.render()) == {
        "CustomResourceDefinition": [
            "gpudemands.gpufleet.dev",
            "gputelemetries.gpufleet.dev",
            "gpuworkloads.gpufleet.dev",
        ],
        "DaemonSet": ["gpufleet-agent"],
        "Deployment": ["gpufleet-operator"],
        "PodDisruptionBudget": ["gpufleet-operator"],
        "Service": ["gpufleet-agent-metrics", "gpufleet-operator-metrics"],
        "ServiceAccount": ["gpufleet-agent", "gpufleet-operator"],
        "ClusterRole": ["gpufleet-agent", "gpufleet-cordon", "gpufleet-edit", "gpufleet-operator", "gpufleet-view"],
        "ClusterRoleBinding": ["gpufleet-agent", "gpufleet-operator"],
        "Role": ["gpufleet-agent", "gpufleet-lease-viewer", "gpufleet-operator", "gpufleet-operator-leases"],
        "RoleBinding": ["gpufleet-agent", "gpufleet-operator", "gpufleet-operator-leases"],
        "ValidatingAdmissionPolicy": policies,
        "ValidatingAdmissionPolicyBinding": policies,
    }


def test_policies_of_adoption_can_be_disabled(chart: Chart) -> None:
    with_policies = names(chart.render(api=MUTATING))
    assert with_policies["MutatingAdmissionPolicy"] == with_policies["MutatingAdmissionPolicyBinding"] == ADOPTION
    without = chart.render({"adoption.mutate": False}, api=MUTATING)
    (message,) = [
        one["messageExpression"]
        for one in without["ValidatingAdmissionPolicy", "gpufleet-adoption"]["spec"]["validations"]
        if "schedulingGates" in one["expression"]
    ]
    assert "add spec.schedulingGates" in message
    assert not any(kind.startswith("Mutating") for kind in kinds(without))
    assert ("ValidatingAdmissionPolicy", "gpufleet-adoption") not in chart.render({"adoption.requireGate": False})


def test_right_to_write_node_conditions_goes_with_them(chart: Chart) -> None:
    def rules(objects: Objects) -> list[dict[str, list[str]]]:
        found: list[dict[str, list[str]]] = objects["ClusterRole", "gpufleet-operator"]["rules"]
        return [rule for rule in found if "nodes/status" in rule.get("resources", [])]

    assert [rule["verbs"] for rule in rules(chart.render({"operator.nodeConditions": True}))] == [["patch"]]
    assert rules(chart.render({"operator.nodeConditions": False})) == []


def test_rendered_crds_are_the_generated_ones(chart: Chart) -> None:
    generated = {path.stem: yaml.safe_load(path.read_text()) for path in (repository_root() / "crds").glob("*.yaml")}
    for crd in crds_of(chart.render()):
        metadata = crd["metadata"]
        assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert metadata["labels"]["app.kubernetes.io/name"] == "gpufleet"
        own = {key: value for key, value in metadata.items() if key not in ("annotations", "labels")}
        assert {**crd, "metadata": own} == generated[str(crd["spec"]["names"]["plural"])]
    dropped = chart.render({"crds.keep": False, "crds.annotations": {"argocd.argoproj.io/sync-options": "a"}})
    assert {str(crd["metadata"]["annotations"]) for crd in crds_of(dropped)} == {
        "{'argocd.argoproj.io/sync-options': 'a'}"
    }
    assert crds_of(chart.render({"crds.enabled": False})) == []


def test_old_kubernetes_is_rejected(cluster: Cluster) -> None:
    here = f"--namespace={NAMESPACE}"
    cluster.helm("template", "gpufleet", PATH, here, "--kube-version=1.34.0")
    with pytest.raises(ClusterError, match=r"kubeVersion: >=1\.34\.0-0"):
        cluster.helm("template", "gpufleet", PATH, here, "--kube-version=1.33.9")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"agent.windowSeconds": 1}, "agent.windowSeconds must be at least twice"),
        ({"operator.staleAfterSeconds": 89}, "operator.staleAfterSeconds must be at least"),
        ({"operator.leaderElection": False}, "operator.leaderElection must be true with several"),
        ({"agent.sampelSeconds": 1}, "'sampelSeconds' not allowed"),
        ({"agnet.port": 1}, "'agnet' not allowed"),
        ({"global.imageRegsitry": "m.corp"}, "'imageRegsitry' not allowed"),
        ({"operator.port": "http"}, "operator/port"),
        ({"resource": "gpu"}, "resource"),
        ({"namespaceOverride": "default"}, "set allowDefaultNamespace=true"),
        ({"agent.driver.access": "Runtime", "agent.driver.hostPath": "/opt"}, 'hostPath: Invalid value: "/opt"'),
        ({"agent.serviceAccount.create": False}, "agent.serviceAccount.name: Required value"),
        (
            {
                "agent.pools": [
                    {"name": "a", "nodeSelector": {"pool": "a"}},
                    {"name": "a", "nodeSelector": {"pool": "b"}},
                ]
            },
            'agent.pools: Duplicate value: "a"',
        ),
        (
            {"metrics.serviceMonitor.enabled": True, "metrics.podMonitor.enabled": True},
            "each series would be scraped twice",
        ),
        ({"transport": "PerNode", "agent.affinity": {"nodeAffinity": {"a": "b"}}}, "cannot be combined"),
    ],
)
def test_wrong_value_is_rejected_with_its_name(chart: Chart, values: dict[str, object], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        chart.text(values)


def test_values_at_their_limits_are_accepted(chart: Chart) -> None:
    assert chart.render({"agent.windowSeconds": 2, "operator.staleAfterSeconds": 90})
    assert chart.render({"namespaceOverride": "default", "allowDefaultNamespace": True})


def test_settings_reach_agent_and_operator(chart: Chart) -> None:
    values = {"resource": "nvidia.com/gpu", "agent.extraArgs": ["--sample-seconds=2"], "policy.requireGate": True}
    (agent,), (operator,) = (pod["spec"]["containers"] for pod in (chart.agent(values), chart.operator(values)))
    assert "--resource=nvidia.com/gpu" in agent["args"]
    assert "--resource=nvidia.com/gpu" in operator["args"]
    assert agent["args"][-1] == "--sample-seconds=2"
    policy = chart.render(values)["ValidatingAdmissionPolicy", "gpufleet-require-gate"]["spec"]
    assert '["nvidia.com/gpu","gpufleet.dev/gpu-shared"].exists' in policy["matchConditions"][0]["expression"]
    unshared = {"sharedResource": "", "agent.sharedSlots": 4}
    for pod in (chart.agent(unshared), chart.operator(unshared)):
        assert {"--shared-resource=", "--shared-slots=4"} <= set(pod["spec"]["containers"][0]["args"])


def test_agent_policy_names_the_agents_account(chart: Chart) -> None:
    for values, name in (({}, "other-agent"), ({"agent.serviceAccount.name": "given"}, "given")):
        objects = chart.render({"fullnameOverride": "other", **values})
        assert objects["DaemonSet", "other-agent"]["spec"]["template"]["spec"]["serviceAccountName"] == name
        policy = objects["ValidatingAdmissionPolicy", "other-own-node"]["spec"]
        account = f"'system:serviceaccount:gpufleet-system:{name}'"
        assert policy["matchConditions"][0]["expression"].endswith(account)


def test_each_kind_of_policy_has_its_own_value(chart: Chart) -> None:
    off = {"policy.enabled": False, "adoption.requireGate": False}
    assert not any("Policy" in kind for kind in kinds(chart.render({**off, "adoption.mutate": False}, api=MUTATING)))
    assert "ValidatingAdmissionPolicy" not in kinds(chart.render(off, api=MUTATING))
    assert "MutatingAdmissionPolicy" in kinds(chart.render(off, api=MUTATING))
    assert "ValidatingAdmissionPolicy" in kinds(chart.render({"policy.enabled": False, "adoption.mutate": False}))


def test_policies_have_the_fields_that_the_apiserver_defaults(chart: Chart) -> None:
    values = {"policy.requireGate": True, "transport": "DRA", "watchNamespaces": ["team"]}
    policies = [
        one
        for (kind, _), one in chart.render(values, api=MUTATING).items()
        if kind in ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")
    ]
    assert len(policies) >= 9
    for policy in policies:
        constraints = policy["spec"]["matchConstraints"]
        assert {"matchPolicy", "namespaceSelector", "objectSelector"} <= constraints.keys(), policy["metadata"]["name"]
        assert {rule["scope"] for rule in constraints["resourceRules"]} == {"*"}


def test_hooks_test_the_installation_and_guard_the_uninstallation(chart: Chart) -> None:
    hooks = names(chart.render(hooks=True))
    assert hooks["Pod"] == ["gpufleet-test"]
    assert hooks["Job"] == ["gpufleet-uninstall"]
    assert "Job" not in kinds(chart.render({"uninstall.check": False}, hooks=True))
    assert chart.render({"rbac.create": False}, hooks=True) == {}, "they need roles of their own"
    values = {"test.timeoutSeconds": 30, "watchNamespaces": ["team"], "resource": "acme.dev/gpu"}
    check = chart.render(values, hooks=True)["Pod", "gpufleet-test"]["spec"]["containers"][0]
    assert {"--timeout-seconds=30", "--resource=acme.dev/gpu"} <= set(check["args"])
    assert '"namespace":"team"' in check["args"][-1]
