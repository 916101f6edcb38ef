"""The CRDs: generated files are current, columns and defaults fit the schema, every field has a description."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gpufleet_api import generate
from gpufleet_api.condition import Condition
from gpufleet_api.crd import DEMAND, RESOURCES, TELEMETRY, WORKLOAD, ApiResource

PYDANTIC_ONLY = {"title", "$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "uniqueItems", "propertyNames"}


SCHEMAS: dict[str, dict[str, Any]] = {
    resource.plural: resource.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for resource in RESOURCES
}


def schema_of(resource: ApiResource) -> dict[str, Any]:
    return SCHEMAS[resource.plural]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[*]")


def at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The node that a printer column's path leads to; an index or a filter leads to the items."""
    for step in re.sub(r"\[(\?\(.*?\)|\d+)\]", ".[]", path).strip(".").split("."):
        schema = schema["items"] if step == "[]" else schema["properties"][step]
    return schema


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
class TestEach:
    def test_columns_show_fields_that_exist_with_their_type(self, resource: ApiResource) -> None:
        schema = schema_of(resource)
        for column in resource.columns:
            if column.path.startswith(".metadata"):
                continue
            node = at(schema, column.path)
            want = ("string", "date-time") if column.type == "date" else (column.type, None)
            assert (node["type"], node.get("format")) == want, column.name

    def test_schema_uses_only_keywords_of_kubernetes(self, resource: ApiResource) -> None:
        for path, node in nodes(schema_of(resource)):
            assert not PYDANTIC_ONLY & node.keys(), path
            open_types = {"type", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"}
            assert open_types & node.keys(), path

    def test_rules_name_a_field_that_exists(self, resource: ApiResource) -> None:
        for path, node in nodes(schema_of(resource)):
            for rule in node.get("x-kubernetes-validations", []):
                if "fieldPath" in rule:  # the apiserver names it
                    at(node, rule["fieldPath"])
                    continue
                named = set(re.findall(r"\w+", rule["message"]))
                assert named & {*node["properties"], "metadata"}, f"{path}: {rule['message']}"

    def test_status_is_a_subresource(self, resource: ApiResource) -> None:
        (version,) = resource.definition()["spec"]["versions"]
        assert version["subresources"]["status"] == {}
        assert version["served"]
        assert version["storage"]

    def test_metadata_is_left_to_the_apiserver(self, resource: ApiResource) -> None:
        assert schema_of(resource)["properties"]["metadata"] == {"type": "object"}


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
def test_every_field_has_a_description(resource: ApiResource) -> None:
    fields = schema_of(resource)["properties"]
    ours = [(path, node) for name in ("spec", "status") for path, node in nodes(fields[name], name)]
    silent = {path for path, node in ours if "description" not in node and not path.endswith("[*]")}
    assert silent == set(), "kubectl explain would say nothing about these"


def test_scope_and_names() -> None:
    assert (TELEMETRY.scope, WORKLOAD.scope) == ("Cluster", "Namespaced")
    assert TELEMETRY.definition()["metadata"]["name"] == "gputelemetries.gpufleet.dev"
    assert WORKLOAD.definition()["spec"]["names"] == {
        "kind": "GPUWorkload",
        "listKind": "GPUWorkloadList",
        "plural": "gpuworkloads",
        "singular": "gpuworkload",
        "shortNames": ["gpuw"],
        "categories": ["gpufleet"],
    }


def test_a_fresh_workload_is_not_ready_for_kstatus() -> None:
    default = schema_of(WORKLOAD)["properties"]["status"]["default"]
    (condition,) = [Condition.model_validate(item) for item in default["conditions"]]
    assert (condition.type, condition.status, condition.reason) == ("Ready", "Unknown", "Pending")
    jsonschema.validate(default, schema_of(WORKLOAD)["properties"]["status"])


def test_lists_with_several_writers_are_list_maps() -> None:
    telemetry, workload = schema_of(TELEMETRY), schema_of(WORKLOAD)
    keys = {
        path: node["x-kubernetes-list-map-keys"]
        for schema in (telemetry, workload)
        for path, node in nodes(schema)
        if node.get("x-kubernetes-list-type") == "map"
    }
    assert keys[".spec.assignments"] == ["podUID"]
    assert keys[".status.conditions"] == ["type"]
    containers = ".spec.template.spec.containers"
    assert (keys[containers], keys[f"{containers}[*].env"]) == (["name"], ["name"])
    assert keys[f"{containers}[*].volumeMounts"] == ["mountPath"]
    assert keys[".spec.template.spec.volumes"] == ["name"]


def test_long_lists_with_one_writer_are_atomic() -> None:
    """As list maps, each field of each item has an owner, and kube-apiserver merges and stores all of them."""
    for schema, field in (
        (schema_of(TELEMETRY), ".status.devices"),
        (schema_of(WORKLOAD), ".status.placements"),
        (schema_of(DEMAND), ".status.runs"),
    ):
        assert at(schema, field)["x-kubernetes-list-type"] == "atomic"


def test_scale_subresource_has_paths_to_fields_that_exist() -> None:
    (version,) = WORKLOAD.definition()["spec"]["versions"]
    paths = version["subresources"]["scale"]
    types = {name: at(schema_of(WORKLOAD), path)["type"] for name, path in paths.items()}
    assert types == {"specReplicasPath": "integer", "statusReplicasPath": "integer", "labelSelectorPath": "string"}
    assert TELEMETRY.definition()["spec"]["versions"][0]["subresources"] == {"status": {}}


def test_committed_crds_match_the_models() -> None:
    assert generate.stale() == [], "run `make crds`"


def test_check_reports_a_stale_file_and_write_renews_it(tmp_path: Path) -> None:
    assert generate.write(tmp_path) == list(generate.files())
    assert generate.stale(tmp_path) == []
    edited = tmp_path / "crds" / "gpuworkloads.yaml"
    edited.write_text(edited.read_text() + "# by hand\n")
    assert generate.stale(tmp_path) == [Path("crds/gpuworkloads.yaml")]
    assert generate.write(tmp_path) == [Path("crds/gpuworkloads.yaml")]
    assert generate.stale(tmp_path) == []


def test_check_command_fails_and_names_the_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["--check"]) == 0
    monkeypatch.setattr(generate, "stale", lambda: [Path("crds/gpuworkloads.yaml")])
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "crds/gpuworkloads.yaml is stale: run `make crds`\n"


def test_rendered_file_reads_back_as_the_definition() -> None:
    texts = generate.files()
    for resource in RESOURCES:
        assert yaml.safe_load(texts[Path("crds", f"{resource.plural}.yaml")]) == resource.definition()


def test_generated_files_have_no_aliases() -> None:
    """Tools that extract schemas from CRDs do not read them."""
    for resource in RESOURCES:
        tokens = yaml.scan(generate.render(resource))
        assert not [token for token in tokens if isinstance(token, yaml.AliasToken)], resource.plural
