"""The guides quote messages and reasons that exist."""

import re

from gpufleet_api.generate import ROOT
from gpufleet_operator.placement.explain.phrases import PHRASES

GUIDE = (ROOT / "docs/guides/machine-learning.md").read_text(encoding="utf-8")


def test_reasons_of_pending_pods_are_those_of_the_operator() -> None:
    section = GUIDE.partition("## Why is my pod pending?")[2]
    first_cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    quoted = {word for cell in first_cells for word in re.findall(r"`([^`]+)`", cell)}
    pages = ("conditions", "events")
    reasons = "".join((ROOT / f"docs/reference/{page}.md").read_text(encoding="utf-8") for page in pages)
    assert len(quoted) > 9
    assert {word for word in quoted if word not in PHRASES.values() and f"`{word}`" not in reasons} == set()
