"""Every document can be found."""

import re

from gpufleet_api.generate import ROOT


def test_every_page_is_linked() -> None:
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")}
    linked = {
        (page.parent / link).resolve()
        for page in (*pages, ROOT / "README.md")
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
    }
    assert pages - linked - {(ROOT / "docs" / "README.md").resolve()} == set()
