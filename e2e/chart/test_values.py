"""What each value of the chart changes."""

from collections.abc import Mapping
from typing import Any

from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.chart import Chart, Objects, kinds
from gpufleet_e2e.support.install import NAMESPACE

DIGEST = f"sha256:{'0' * 64}"
VOLUME = {"name": "ca", "configMap": {"name": "ca"}}
MOUNT = {"name": "ca", "mountPath": "/etc/ssl/corp"}
HELPER = {"name": "helper", "image": "busybox"}
BOTH = ("agent", "operator")


def pods(chart: Chart, values: Mapping[str, object]) -> list[Any]:
    return [chart.agent(values), chart.operator(values)]


def for_both(**values: object) -> dict[str, object]:
    return {f"{component}.{name}": value for component in BOTH for name, value in values.items()}


def images(chart: Chart, values: Mapping[str, object]) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in pods(chart, values)]


def test_images_are_named_by_registry_repository_and_version(chart: Chart) -> None:
    assert images(chart, {}) == [f"localhost/gpufleet-{component}:0.1.0" for component in BOTH]
    mirror: dict[str, object] = {"image.registry": "r.example", "global.imageRegistry": "m.corp/x", "image.tag": "2"}
    assert images(chart, mirror) == [f"m.corp/x/gpufleet-{component}:2" for component in BOTH]
    own = {"agent.image": {"repository": "a/b", "tag": "3", "digest": DIGEST}, "image.registry": "", "image.tag": "2"}
    assert images(chart, own) == [f"a/b:3@{DIGEST}", "gpufleet-operator:2"]


def test_pull_secrets_of_all_charts_and_of_this_one_are_used(chart: Chart) -> None:
    one, two = {"name": "one"}, {"name": "two"}
    for pod in pods(chart, {"global.imagePullSecrets": [one], "imagePullSecrets": [two, one]}):
        assert pod["spec"]["imagePullSecrets"] == [one, two]
    assert all("imagePullSecrets" not in pod["spec"] for pod in pods(chart, {}))


def test_security_contexts_are_merged(chart: Chart) -> None:
    linux = {"seLinuxOptions": {"type": "container_device_plugin_t"}}
    for pod in pods(chart, for_both(podSecurityContext={"fsGroup": 7}, securityContext=linux)):
        assert pod["spec"]["securityContext"]["fsGroup"] == 7
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        context = pod["spec"]["containers"][0]["securityContext"]
        assert context["seLinuxOptions"] == linux["seLinuxOptions"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_common_labels_and_annotations_are_on_every_object(chart: Chart) -> None:
    label, note = {"cost-center": "42"}, {"owner": "ml-platform"}
    everything: dict[str, object] = {
        "platform": "openshift", "transport": "DRA", "policy.requireGate": True, "networkPolicy.enabled": True,
        "watchNamespaces": ["team"], "metrics.serviceMonitor.enabled": True,
        "metrics.dashboard.enabled": True, "metrics.prometheusRule.enabled": True,
        "rbac.telemetryViewers": ["all"], "podSecurity.createNamespace": True,
    }  # fmt: skip
    objects = chart.render({**everything, "commonLabels": label, "commonAnnotations": note})
    assert len(objects) > 35
    for name, one in objects.items():
        found = [one["metadata"]]
        if name[0] in ("DaemonSet", "Deployment"):
            found.append(one["spec"]["template"]["metadata"])
            assert "cost-center" not in one["spec"]["selector"]["matchLabels"], "selectors cannot be changed later"
        for metadata in found:
            assert label.items() <= metadata["labels"].items(), name
            assert note.items() <= metadata["annotations"].items(), name


def test_namespace_override_moves_every_object(chart: Chart) -> None:
    objects = chart.render({"namespaceOverride": "gpus"})
    namespaces = {one["metadata"].get("namespace") for one in objects.values()}
    assert namespaces == {None, "gpus", "kube-node-lease"}
    subjects = [subject for one in objects.values() for subject in one.get("subjects", ())]
    assert {subject["namespace"] for subject in subjects} == {"gpus"}
    assert "gpus:gpufleet-agent" in str(objects["ValidatingAdmissionPolicy", "gpufleet-own-node"])


def test_namespace_is_rendered_with_its_label_on_request(chart: Chart) -> None:
    namespace = chart.render({"podSecurity.createNamespace": True})["Namespace", NAMESPACE]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_additional_containers_volumes_and_objects_are_rendered(chart: Chart) -> None:
    added = for_both(
        extraVolumes=[VOLUME], extraVolumeMounts=[MOUNT], extraContainers=[HELPER], extraInitContainers=[HELPER]
    )
    for pod in pods(chart, added):
        assert VOLUME in pod["spec"]["volumes"]
        assert MOUNT in pod["spec"]["containers"][0]["volumeMounts"]
        assert pod["spec"]["containers"][1:] == pod["spec"]["initContainers"] == [HELPER]
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}, "data": {"a": "b"}}
    text = 'apiVersion: v1\nkind: Secret\nmetadata: {name: \'{{ .Values.resource | replace "/" "-" }}\'}\n'
    objects = chart.render({"extraObjects": [extra, text]})
    assert objects["ConfigMap", "gpufleet-x"]["data"] == {"a": "b"}
    assert ("Secret", "gpufleet.dev-gpu") in objects


def test_workload_level_metadata_and_network_are_set(chart: Chart) -> None:
    values = {**for_both(annotations={"argocd.argoproj.io/sync-wave": "2"}), "agent.hostNetwork": True}
    for owner in (("DaemonSet", "gpufleet-agent"), ("Deployment", "gpufleet-operator")):
        assert chart.render(values)[owner]["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "2"}
    pod = chart.agent(values)["spec"]
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "hostNetwork" not in chart.agent()["spec"]


def test_accounts_and_roles_may_come_from_elsewhere(chart: Chart) -> None:
    given = for_both(serviceAccount={"create": False, "name": "given"})
    assert "ServiceAccount" not in kinds(chart.render(given))
    assert {pod["spec"]["serviceAccountName"] for pod in pods(chart, given)} == {"given"}
    noted = chart.render(for_both(serviceAccount={"annotations": {"iam": "role"}}))
    assert noted["ServiceAccount", "gpufleet-agent"]["metadata"]["annotations"] == {"iam": "role"}
    assert not any("Role" in kind for kind in kinds(chart.render({"rbac.create": False})))


def test_roles_are_aggregated_only_on_request(chart: Chart) -> None:
    def aggregated(values: Mapping[str, object]) -> set[str]:
        return {
            name
            for (kind, name), one in chart.render(values).items()
            if kind == "ClusterRole" and any("aggregate-to" in label for label in one["metadata"]["labels"])
        }

    assert aggregated({}) == {"gpufleet-view", "gpufleet-edit"}
    assert aggregated({"rbac.aggregate": False}) == set()


def test_viewers_of_telemetry_are_bound(chart: Chart) -> None:
    objects = chart.render({"rbac.telemetryViewers": ["system:authenticated"]})
    for kind, name in (("ClusterRoleBinding", "gpufleet-telemetry-viewer"), ("RoleBinding", "gpufleet-lease-viewer")):
        (subject,) = objects[kind, name]["subjects"]
        assert (subject["kind"], subject["name"]) == ("Group", "system:authenticated")


def test_operator_writes_in_watched_namespaces_only(chart: Chart) -> None:
    def writes(one: JsonObject) -> set[str]:
        return {
            f"{verb} {resource}"
            for rule in one["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            if verb not in ("get", "list", "watch")
        }

    everywhere = chart.render({"operator.kueue": True})
    watched = chart.render({"operator.kueue": True, "watchNamespaces": ["team-a", "team-b"]})
    roles = [one for one in chart.text({"watchNamespaces": ["team-a", "team-b"]}).split("---") if "kind: Role\n" in one]
    assert {name for name in ("team-a", "team-b", "kube-node-lease") if f"namespace: {name}" in "".join(roles)} == {
        "team-a", "team-b", "kube-node-lease"
    }  # fmt: skip
    cluster, role = ("ClusterRole", "gpufleet-operator"), ("Role", "gpufleet-operator")
    assert {"create pods", "delete pods", "patch gpuworkloads/status"} <= writes(everywhere[cluster])
    in_namespaces = ("pods", "gpuworkloads", " workloads/status")
    assert not {one for one in writes(watched[cluster]) if any(name in one for name in in_namespaces)}
    assert writes(watched[cluster]) | writes(watched[role]) == writes(everywhere[cluster])


def test_operator_moves_after_thirty_seconds_from_a_lost_node(chart: Chart) -> None:
    assert {one["tolerationSeconds"] for one in chart.operator()["spec"]["tolerations"]} == {30}


def test_several_operators_are_spread_and_evicted_one_at_a_time(chart: Chart) -> None:
    alone, pair = chart.render({"operator.replicas": 1}), chart.render()
    name = "gpufleet-operator"
    templates = [one["Deployment", name]["spec"]["template"] for one in (alone, pair)]
    assert templates[0] == templates[1], "a change of their number changes their pods"
    assert alone["Deployment", name]["spec"]["strategy"] == {"type": "Recreate"}
    assert "PodDisruptionBudget" not in kinds(alone)
    spec = pair["Deployment", name]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    (term,) = spec["template"]["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selector = spec["selector"]["matchLabels"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == selector
    budget = pair["PodDisruptionBudget", name]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (1, selector)
    values = {"operator.podDisruptionBudget.enabled": False}
    assert "PodDisruptionBudget" not in kinds(chart.render(values))


def test_network_policies_allow_scrapes_apiserver_and_dns(chart: Chart) -> None:
    assert "NetworkPolicy" not in kinds(chart.render())
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    values = {"networkPolicy": {"enabled": True, "metricsFrom": [peer], "apiserver": {"cidrs": ["10.0.0.1/32"]}}}
    objects = chart.render(values)
    for component in BOTH:
        policy = objects["NetworkPolicy", f"gpufleet-{component}"]["spec"]
        pod = objects["DaemonSet" if component == "agent" else "Deployment", f"gpufleet-{component}"]["spec"][
            "template"
        ]
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert policy["ingress"] == [{"ports": [{"port": "metrics", "protocol": "TCP"}], "from": [peer]}]
        apiserver, dns = policy["egress"]
        assert [one["port"] for one in apiserver["ports"]] == [443, 6443]
        assert apiserver["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
        assert [one["port"] for one in dns["ports"]] == [53, 53]


def test_monitors_keep_the_labels_of_the_series(chart: Chart) -> None:
    assert not {"ServiceMonitor", "PodMonitor"} & kinds(chart.render())
    settings = {
        "enabled": True, "namespace": "monitoring", "interval": "15s", "scrapeTimeout": "10s",
        "relabelings": [{"targetLabel": "a"}], "metricRelabelings": [{"action": "drop"}],
        "labels": {"release": "kps"}, "annotations": {"b": "c"},
    }  # fmt: skip
    for kind, name, endpoints in (
        ("ServiceMonitor", "serviceMonitor", "endpoints"),
        ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
    ):
        for component in BOTH:
            (usual,) = chart.render({f"metrics.{name}.enabled": True})[kind, f"gpufleet-{component}"]["spec"][endpoints]
            node = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
            assert usual == {"port": "metrics", "interval": "30s", "honorLabels": True, "relabelings": [node]}
            monitor = chart.render({f"metrics.{name}": settings})[kind, f"gpufleet-{component}"]
            assert monitor["metadata"]["namespace"] == "monitoring"
            assert monitor["metadata"]["labels"]["release"] == "kps"
            assert monitor["metadata"]["annotations"] == {"b": "c"}
            (endpoint,) = monitor["spec"][endpoints]
            assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
            assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "10s")
            assert endpoint["relabelings"] == [node, {"targetLabel": "a"}]
            assert endpoint["metricRelabelings"] == [{"action": "drop"}]


def agent_rules(objects: Objects) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = objects["ClusterRole", "gpufleet-agent"]["rules"]
    return found


def test_other_dra_driver_brings_its_own_class(chart: Chart) -> None:
    """The agent then only measures; the policy protects the class of that driver."""
    driver = "gpu.nvidia.com"
    objects = chart.render({"transport": "DRA", "dra.driver": driver})
    assert "DeviceClass" not in kinds(objects)
    assert "DeviceClass" in kinds(chart.render({"transport": "DRA"}))
    for owner in (("DaemonSet", "gpufleet-agent"), ("Deployment", "gpufleet-operator")):
        (container,) = objects[owner]["spec"]["template"]["spec"]["containers"]
        assert f"--dra-driver={driver}" in container["args"]
        assert not {"plugin", "plugins-registry"} & {mount["name"] for mount in container.get("volumeMounts", ())}
    slices = [rule["verbs"] for rule in agent_rules(objects) if rule["resources"] == ["resourceslices"]]
    assert slices == [["list"]]
    assert all(rule["resources"] != ["resourceclaims"] for rule in agent_rules(objects))
    policy = objects["ValidatingAdmissionPolicy", "gpufleet-claims"]
    assert f"== '{driver}'" in str(policy["spec"]["variables"])
