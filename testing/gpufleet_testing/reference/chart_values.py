"""The values of the chart: defaults from values.yaml, meaning from the descriptions of the schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from gpufleet_api.generate import ROOT
from gpufleet_testing.reference.markdown import code, table

_CHART: Final = ROOT / "charts" / "gpufleet"


def table_of_values() -> str:
    """Returns a row for each value that can be set."""
    schema = json.loads((_CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((_CHART / "values.yaml").read_text(encoding="utf-8"))
    return table(("value", "default", "meaning"), _rows(schema, schema, values, ()))


def _rows(
    root: Mapping[str, Any], schema: Mapping[str, Any], values: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    for name, given in schema["properties"].items():
        found, here = {**_resolved(root, given), **given}, (*path, name)
        if "properties" in found and found.get("additionalProperties") is False and values[name]:
            yield from _rows(root, found, values[name], here)
        else:
            yield code(".".join(here)), code(_shown(values[name])), _meaning(found)


def _resolved(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the definition that a schema refers to; empty without a reference."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    found: Mapping[str, Any] = root["$defs"].get(name, {})
    return found


def _shown(value: object) -> str:
    text = json.dumps(value)
    return value if isinstance(value, str) else text


def _meaning(schema: Mapping[str, Any]) -> str:
    choices = [code(str(choice)) for choice in schema.get("enum", ()) if choice != ""]
    listed = f" One of {', '.join(choices)}." if choices else ""
    return f"{schema['description']}{listed}"
