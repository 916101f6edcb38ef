"""Checks of the chart that need no helm: values, schema, permissions, policies."""

import json
import re
from copy import deepcopy
from textwrap import indent
from typing import Any

import jsonschema
import pytest
import yaml

from gpufleet_agent import settings
from gpufleet_api import names
from gpufleet_api.generate import ROOT

CHART = ROOT / "charts" / "gpufleet"
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir()}


@pytest.fixture(scope="module")
def defaults() -> Any:
    return yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def values(defaults: dict[str, Any]) -> dict[str, Any]:
    return deepcopy(defaults)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(read)
    return read


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, item in value.items():
        found += leaves(item, (*path, key)) if isinstance(item, dict) and item else [(*path, key)]
    return found


def validate(values: dict[str, Any], schema: dict[str, Any]) -> None:
    """As jsonschema.validate, which checks the schema each time."""
    jsonschema.Draft7Validator(schema).validate(values)


def test_default_values_fit_the_schema(values: dict[str, Any], schema: dict[str, Any]) -> None:
    validate(values, schema)


def test_every_value_of_the_schema_has_a_default(values: dict[str, Any], schema: dict[str, Any]) -> None:
    def missing(node: dict[str, Any], value: dict[str, Any], path: str) -> list[str]:
        holes = []
        for name, child in node.get("properties", {}).items():
            if name not in value:
                holes.append(f"{path}.{name}")
            elif isinstance(value[name], dict):
                holes += missing(child, value[name], f"{path}.{name}")
        return holes

    assert missing(schema, values, "") == []


def test_every_value_of_the_schema_has_a_description(schema: dict[str, Any]) -> None:
    def silent(node: dict[str, Any], path: str) -> list[str]:
        found = [f"{path}.{name}" for name, child in node.get("properties", {}).items() if "description" not in child]
        return found + [hole for name, child in node.get("properties", {}).items() for hole in silent(child, name)]

    assert silent(schema, "") == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("agent", "sampelSeconds"), 1),
        (("agnet",), {}),
        (("agent", "sampleSeconds"), "1s"),
        (("agent", "sampleSeconds"), 0),
        (("agent", "driver", "hostPath"), "relative/path"),
        (("agent", "reportSeconds"), 3601),
        (("agent", "logLevel"), "loud"),
        (("agent", "hostPID"), "yes"),
        (("agent", "nodeSelector"), {"gpu": True}),
        (("agent", "extraArgs"), ["log-level=debug"]),
        (("operator", "port"), 70000),
        (("operator", "replicas"), 0),
        (("global", "imageRegsitry"), "mirror.example.com"),
        (("global", "imageRegistry"), "mirror.example.com/"),
        (("platform",), "eks"),
        (("agent", "image", "digest"), "sha256:short"),
        (("agent", "image", "repository"), "Agent"),
        (("agent", "driver", "access"), "host"),
        (("agent", "containerMounts"), [{"hostPath": "/opt/driver"}]),
        (("agent", "affinity"), {"nodeAfinity": {}}),
        (("agent", "updateStrategy", "rollingUpdate", "maxSurge"), 1),
        (("agent", "updateStrategy", "rollingUpdate", "maxUnavailble"), 1),
        (("agent", "extraVolumes"), [{"emptyDir": {}}]),
        (("agent", "serviceAccount", "name"), "Agent"),
        (("agent", "pools"), [{"name": "a"}]),
        (("agent", "pools"), [{"name": "a", "nodeSelector": {"pool": "a"}, "port": 1}]),
        (("agent", "pools"), [{"name": "A", "nodeSelector": {"pool": "a"}}]),
        (("agent", "pools"), [{"name": "a", "nodeSelector": {"pool": "a"}, "migStrategy": "all"}]),
        (("watchNamespaces",), ["Team"]),
        (("rbac", "telemetryViewers"), "system:authenticated"),
        (("networkPolicy", "apiserver", "ports"), []),
        (("networkPolicy", "apiserver", "cidrs"), ["10.0.0.1"]),
        (("metrics", "podMonitor", "scrapeTimeout"), "10"),
        (("image", "pullPolicy"), "Sometimes"),
        (("policy", "requireGate"), "yes"),
        (("agent", "windowSeconds"), 3601),
        (("resource",), "gpu"),
        (("resource",), "a.b_c/gpu"),
        (("resource",), "a..b/gpu"),
        (("resource",), "kubernetes.io/gpu"),
        (("sharedResource",), "requests.dev/gpu"),
        (("sharedResource",), "gpu-shared"),
        (("agent", "sharedSlots"), 65),
        (("agent", "migStrategy"), "all"),
        (("health", "ignoreXids"), ["79"]),
        (("health", "fatalXids"), [0]),
        (("health", "onXidWithoutAction"), "fault"),
        (("agent", "deviceListStrategies"), ["cdi"]),
        (("agent", "deviceListStrategies"), ["envvar", "envvar"]),
        (("agent", "cdi", "kind"), "gpu"),
        (("agent", "cdi", "kind"), "1x/gpu"),
        (("agent", "cdi", "root"), "cdi"),
        (("agent", "driverRoot"), "run/nvidia/driver"),
        (("agent", "stateDir"), "state"),
        (("agent", "stateDir"), "/"),
        (("metrics", "serviceMonitor", "interval"), "30"),
        (("transport",), "dra"),
        (("agent", "kubelet", "pluginsDir"), "plugins"),
    ],
)
def test_wrong_or_misspelled_value_is_rejected(
    values: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...], wrong: object
) -> None:
    at = values
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        validate(values, schema)


def test_every_value_is_used_by_a_template(values: dict[str, Any]) -> None:
    """e2e/chart renders each with helm; this finds one that no template reads."""
    text = "".join(TEMPLATES.values())
    read = set(re.findall(r"\.([A-Za-z]+)\b", text)) | {"serviceMonitor", "podMonitor"}  # by `index`
    # Objects such as resources are copied as a whole.
    assert [path for path in leaves(values) if not read & set(path[-3:])] == []


def test_shared_resource_may_be_empty(values: dict[str, Any], schema: dict[str, Any]) -> None:
    values["sharedResource"] = ""
    validate(values, schema)


def test_state_dir_may_be_empty(values: dict[str, Any], schema: dict[str, Any]) -> None:
    values["agent"]["stateDir"] = ""
    validate(values, schema)


@pytest.mark.parametrize(
    ("template", "condition", "message"),
    [
        (
            "agent-daemonset.yaml",
            "lt (float64 $agent.windowSeconds) (mulf 2 $agent.sampleSeconds)",
            "agent.windowSeconds must be at least twice agent.sampleSeconds",
        ),
        (
            "operator-deployment.yaml",
            "lt (float64 .Values.operator.staleAfterSeconds) (mulf 3 .Values.agent.heartbeatSeconds)",
            "operator.staleAfterSeconds must be at least three times agent.heartbeatSeconds",
        ),
        (
            "operator-deployment.yaml",
            "and $several (not $operator.leaderElection)",
            "operator.leaderElection must be true with several operator.replicas",
        ),
    ],
)
def test_values_that_contradict_each_other_are_rejected(template: str, condition: str, message: str) -> None:
    """The schema cannot compare two values; e2e/chart/test_render.py renders such values."""
    assert f'{{{{- if {condition} }}}}\n{{{{- fail "{message}" }}}}\n{{{{- end }}}}\n' in TEMPLATES[template]


def test_notes_and_guide_show_the_same_first_workload() -> None:
    guide = read("docs/operations/install.md")
    start = guide.index("kubectl apply -f - <<'END'")
    assert indent(guide[start : guide.index("```", start)], "  ") in TEMPLATES["NOTES.txt"]


def test_pages_show_the_same_installation() -> None:
    pages = ("README.md", "docs/operations/install.md", "charts/gpufleet/README.md")
    blocks = {
        block
        for page in pages
        for block in re.findall(r"```\n(kubectl create namespace .*?)```", read(page), re.DOTALL)
    }
    assert len(blocks) == 1


def test_chart_states_its_requirements() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["name"] == "gpufleet"
    assert chart["kubeVersion"] == ">=1.34.0-0", "the kubelet's PodResources list leaves out pods that have ended"
    for page in ("charts/gpufleet/README.md", "docs/reference/agent.md", "README.md"):
        assert re.search(r"Kubernetes\s+1\.34", (ROOT / page).read_text(encoding="utf-8")), page
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["appVersion"]}"' in pyproject


def test_templates_use_the_names_of_the_api() -> None:
    pods = TEMPLATES["policy-pods.yaml"] + TEMPLATES["policy-require-gate.yaml"]
    assert names.SCHEDULING_GATE in pods
    assert names.ASSIGNMENT_ANNOTATION in pods
    assert f"check('{names.ASSIGN_VERB}')" in TEMPLATES["_helpers.tpl"]
    operator = TEMPLATES["rbac-operator.yaml"]
    assert re.search(rf"resources: \[{names.TELEMETRY_PLURAL}\][^\[]*verbs: \[.*\b{names.ASSIGN_VERB}\b.*\]", operator)
    assert names.ASSIGN_VERB not in TEMPLATES["rbac-agent.yaml"]


def test_driver_has_the_name_of_the_api_and_no_extended_resource() -> None:
    device_class = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "", TEMPLATES["deviceclass.yaml"], flags=re.DOTALL))
    assert device_class["metadata"]["name"] == names.DRA_DRIVER
    assert device_class["spec"] == {"selectors": [{"cel": {"expression": f'device.driver == "{names.DRA_DRIVER}"'}}]}
    assert f"== '{names.DRA_DRIVER}'" in TEMPLATES["policy-own-slice.yaml"]
    assert "== {{ squote .Values.dra.driver }}" in TEMPLATES["policy-claims.yaml"]
    assert yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["dra"] == {"driver": names.DRA_DRIVER}
    assert f"/{names.DRA_DRIVER}}}" in TEMPLATES["_agent.tpl"]


def test_agent_may_write_only_its_own_lease() -> None:
    assert re.search(r"resources: \[leases\]\s+verbs: \[create, patch\]\n", TEMPLATES["rbac-agent.yaml"])
    policy = TEMPLATES["policy-own-lease.yaml"]
    assert f"variables.lease.metadata.name == '{names.AGENT_LEASE_PREFIX}' + variables.node" in policy
    assert "request.operation != 'DELETE'" in policy


def test_values_have_the_limits_and_defaults_of_the_agent(defaults: dict[str, Any], schema: dict[str, Any]) -> None:
    limits = schema["properties"]["agent"]["properties"]
    assert limits["reportSeconds"]["maximum"] == settings.MAX_REPORT_SECONDS
    assert limits["heartbeatSeconds"]["maximum"] == settings.MAX_HEARTBEAT_SECONDS
    assert defaults["agent"]["reportSeconds"] == settings.DEFAULTS.report_seconds
    assert defaults["agent"]["heartbeatSeconds"] == settings.DEFAULTS.heartbeat_seconds


def test_agent_may_not_delete() -> None:
    assert "delete" not in TEMPLATES["rbac-agent.yaml"]


def test_agent_may_create_events_and_not_read_pods() -> None:
    rules = TEMPLATES["rbac-agent.yaml"]
    assert re.search(r"resources: \[events\]\s+verbs: \[create\]\n", rules)
    assert "pods" not in re.sub(r"#.*", "", rules)


def test_each_policy_is_documented() -> None:
    documented = set(re.findall(r"^\| `([a-z-]+)`", read("docs/concepts/security.md"), re.MULTILINE))
    policies = [text for name, text in TEMPLATES.items() if name.startswith("policy-")]
    made = {name for text in policies for name in re.findall(r'\$name := printf "%s-([a-z-]+)"', text)}
    assert len(made) > 7
    assert made - documented == set()


def test_each_policy_has_a_binding_and_fails_closed() -> None:
    policies = {name: text for name, text in TEMPLATES.items() if name.startswith("policy-")}
    assert len(policies) == 10
    for name, text in policies.items():
        kind = "Mutating" if "mutating" in name else "Validating"
        number = 2 if "adoption" in name else 1
        assert text.count(f"kind: {kind}AdmissionPolicy\n") == number, name
        assert text.count(f"kind: {kind}AdmissionPolicyBinding\n") == number, name
        assert text.count("failurePolicy: Fail") == number, name
        assert text.count("validationActions: [Deny]") == (number if kind == "Validating" else 0), name
