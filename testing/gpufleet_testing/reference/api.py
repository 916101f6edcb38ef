"""Tables of API fields, from the schemas of the CustomResourceDefinitions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gpufleet_api.crd import RESOURCES
from gpufleet_testing.reference.markdown import code, table

_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern", "format")


def kind(name: str) -> str:
    """Returns a table for each object of the kind's spec and status, and the columns of `kubectl get`."""
    resource = next(resource for resource in RESOURCES if resource.kind == name)
    (version,) = resource.definition()["spec"]["versions"]
    parts = []
    for path, schema in _objects("", version["schema"]["openAPIV3Schema"]):
        rows = [_row(field, of, schema) for field, of in schema["properties"].items()]
        intro = " ".join(schema.get("description", "").split())
        rules = [_rule(rule) for rule in schema.get("x-kubernetes-validations", ()) if "message" in rule]
        text = [f"### {name}.{path}", *([f"{intro}\n"] if intro else []), table(("field", "type", "meaning"), rows)]
        if rules:
            text += ["", "Rules:", *(f"- {rule}" for rule in rules)]
        parts.append("\n".join(text))
    columns = [
        (column["name"], "wide" if column.get("priority") else "", column["description"])
        for column in version["additionalPrinterColumns"]
    ]
    parts.append(f"### Columns of kubectl get {resource.plural}\n{table(('column', 'shown', 'meaning'), columns)}")
    return "\n\n".join(parts)


def _objects(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every object with fields of its own, depth first in the schema's order."""
    if schema.get("x-kubernetes-preserve-unknown-fields") and "properties" not in schema:
        return
    if "properties" in schema:
        if path:
            yield path, schema
        for name, field in schema["properties"].items():
            if path or name not in ("apiVersion", "kind", "metadata"):
                yield from _objects(f"{path}.{name}".lstrip("."), field)
    elif "items" in schema:
        yield from _objects(f"{path}[]", schema["items"])


def _rule(rule: Mapping[str, Any]) -> str:
    """Returns field and message, as the apiserver's error shows them."""
    field = rule.get("fieldPath", "").lstrip(".")
    return f"{code(field)}: {rule['message']}" if field else str(rule["message"])


def _row(field: str, of: Mapping[str, Any], parent: Mapping[str, Any]) -> tuple[str, str, str]:
    shape = of.get("items", of)
    described = [" ".join(of.get("description", shape.get("description", "")).split())]
    if "enum" in shape:
        described.append("One of " + ", ".join(code(str(value)) for value in shape["enum"]) + ".")
    bounds = [f"{bound} {code(str(of[bound]))}" for bound in _BOUNDS if bound in of]
    bounds += [f"of each: {bound} {code(str(shape[bound]))}" for bound in _BOUNDS if shape is not of and bound in shape]
    if bounds:
        described.append(f"({', '.join(bounds)})")
    if "default" in of:
        default = of["default"]
        described.append(f"Default: {code(default if isinstance(default, str) else json.dumps(default))}.")
    if field in parent.get("required", ()):
        described.append("Required.")
    return code(field), _type(of), " ".join(part for part in described if part)


def _type(of: Mapping[str, Any]) -> str:
    if "items" in of:
        return f"{_type(of['items'])}[]"
    if "additionalProperties" in of:
        return f"map of {_type(of['additionalProperties'])}"
    return "integer or string" if of.get("x-kubernetes-int-or-string") else str(of.get("type", "any"))
