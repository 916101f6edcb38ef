"""docs/reference/parity.md names tests that exist, and gives a reason for what gpufleet does not have."""

import re
from pathlib import Path

import pytest

from gpufleet_api.generate import ROOT

TEXT = (ROOT / "docs/reference/parity.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`((?:e2e|tests)/[\w/]+\.py)(?:::(test_\w+))?`", TEXT)))
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}


@pytest.mark.parametrize(("path", "test"), TESTS, ids=[f"{Path(path).stem}-{test}" for path, test in TESTS])
def test_named_test_exists(path: str, test: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {test}(" in source if test else "def test_" in source


@pytest.mark.parametrize("section", ["Chart", "Command line", "API", "GitOps", "Images and releases"])
def test_every_row_has_a_verdict_a_proof_and_a_reason_unless_it_is_yes(section: str) -> None:
    rows = [re.split(r" *\| *", line.strip("| ")) for line in SECTIONS[section].splitlines() if line[:2] == "| "]
    assert len(rows) > 5
    for name, verdict, how, shown in rows[1:]:
        assert verdict in {"yes", "part", "no"}, name
        assert re.search(r"`\w+/.*\.py|\]\(", shown), name
        assert verdict == "yes" or how, name
