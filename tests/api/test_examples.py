"""The manifests in examples/ fit the API exactly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gpufleet_api.crd import WORKLOAD
from gpufleet_api.generate import ROOT
from gpufleet_api.workload import GPUWorkload

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def unknown_fields(schema: dict[str, Any], value: object, path: str) -> Iterator[str]:
    """What strict field validation would reject."""
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            if name in schema["properties"]:
                yield from unknown_fields(schema["properties"][name], item, f"{path}.{name}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{name}"
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            yield from unknown_fields(schema["items"], item, f"{path}[*]")


def test_documented_examples_exist() -> None:
    assert {path.stem for path in EXAMPLES} >= {"single", "gang", "spread", "distribution", "impossible", "shared"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_valid_and_has_a_comment(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    (version,) = WORKLOAD.definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    for found in documents:
        jsonschema.validate(found, schema)
        spec = schema["properties"]["spec"]
        assert list(unknown_fields(spec, found["spec"], "spec")) == []
    assert GPUWorkload.model_validate(documents[0]).metadata.name == path.stem
    assert text.startswith("# "), "a reader wants to know what it shows"
