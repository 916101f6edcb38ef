"""Manifests and chart values that documents show are valid."""

import re
from pathlib import Path

import pytest
import yaml

from gpufleet_api.generate import ROOT
from gpufleet_testing.cli.runner import run_cli

PAGES = [ROOT / "README.md", ROOT / "charts/gpufleet/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANIFESTS = [
    (str(page.relative_to(ROOT)), manifest)
    for page in PAGES
    for manifest in re.findall(r"<<'END'\n(.*?)\nEND\n", page.read_text(encoding="utf-8"), re.DOTALL)
]
VALUES = re.compile(r"`((?!crds\.yaml)(?:agent|operator|policy|crds|metrics|image)\.[A-Za-z.]+)(?:[=`])")


@pytest.mark.parametrize(("page", "manifest"), MANIFESTS, ids=[page for page, _ in MANIFESTS])
def test_shown_workload_is_valid_and_can_be_placed(page: str, manifest: str, tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(manifest, encoding="utf-8")
    fleet = ROOT / "examples/fleets/mixed.yaml"
    done = run_cli("simulate", "-f", file, "--from", fleet)
    assert done.code == 0, f"{page}: {done.out}{done.err}"


def test_chart_values_in_documents_exist() -> None:
    values = yaml.safe_load((ROOT / "charts/gpufleet/values.yaml").read_text(encoding="utf-8"))
    named = {name for page in PAGES for name in VALUES.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 12
    assert {name for name in named if not _has(values, name.split("."))} == set()


def _has(values: object, path: list[str]) -> bool:
    for name in path:
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True
