"""Public classes of the product have one name each, so that a search finds one definition."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "common", "crds", "nodeagent", "operator")

MIRRORS = {"Assignment", "HealthReason", "HealthState", "Recovery", "Statistics"}
"""Classes of the API that the agent has as well: it runs on every GPU node and does not import pydantic."""


def definitions() -> dict[str, set[str]]:
    """Returns the modules that define each public class."""
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.stem.endswith("_pb2"):
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].add(str(path.relative_to(ROOT)))
    return found


def test_no_public_class_name_occurs_twice() -> None:
    repeated = {name: paths for name, paths in definitions().items() if len(paths) > 1 and name not in MIRRORS}
    assert repeated == {}


def test_mirrors_are_classes_of_api_and_agent() -> None:
    found = definitions()
    for name in MIRRORS:
        assert [path.split("/")[0] for path in sorted(found[name])] == ["crds", "nodeagent"]
