"""The schema for Kustomize: the merge keys of the CRD, and those of the built-in kinds that it replaces."""

import json
from typing import Any

from gpufleet_api import kustomize
from gpufleet_api.crd import WORKLOAD

DEFINITIONS: dict[str, Any] = json.loads(kustomize.render())["definitions"]


def at(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Follows fields, items and references."""
    for step in path:
        schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        schema = schema["items"] if step == "[]" else schema["properties"][step]
    return DEFINITIONS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def keys(schema: dict[str, Any]) -> dict[str, str]:
    """Merge keys by field."""
    return {
        name: field["x-kubernetes-patch-merge-key"]
        for name, field in schema["properties"].items()
        if field.get("x-kubernetes-patch-strategy") == "merge"
    }


def test_lists_of_the_template_have_the_keys_of_the_crd() -> None:
    (version,) = WORKLOAD.definition()["spec"]["versions"]
    pod = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["template"]["properties"]["spec"]
    for schema, path in (
        (pod, ("spec", "template", "spec")),
        (pod["properties"]["containers"]["items"], ("spec", "template", "spec", "containers", "[]")),
    ):
        stated = {
            name: field["x-kubernetes-list-map-keys"][0]
            for name, field in schema["properties"].items()
            if field.get("x-kubernetes-list-type") == "map"
        }
        merged = keys(at(DEFINITIONS["gpufleet.dev.v1alpha1.GPUWorkload"], *path))
        assert len(stated) > 1
        assert stated.items() <= merged.items()


def test_built_in_kinds_keep_their_merge_keys() -> None:
    for kind, path in {
        "apps.v1.Deployment": ("spec", "template", "spec"),
        "batch.v1.CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
        "v1.Pod": ("spec",),
    }.items():
        assert keys(at(DEFINITIONS[kind], *path))["containers"] == "name"
        assert keys(at(DEFINITIONS[kind], *path, "containers", "[]"))["ports"] == "containerPort"
    assert keys(at(DEFINITIONS["v1.Service"], "spec")) == {"ports": "port"}


def test_every_kind_has_its_identity() -> None:
    identities = [of["x-kubernetes-group-version-kind"][0] for name, of in DEFINITIONS.items() if "." in name]
    assert {"group": "gpufleet.dev", "version": "v1alpha1", "kind": "GPUWorkload"} in identities
    assert len(identities) == len(DEFINITIONS) - 2
