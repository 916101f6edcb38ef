"""docs/development/traceability.md names tests that exist."""

import re

from gpufleet_api.generate import ROOT

PAGE = (ROOT / "docs/development/traceability.md").read_text(encoding="utf-8")


def test_page_names_existing_files() -> None:
    paths = re.findall(r"`(tests/[\w/.]+)`", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_page_names_existing_tests() -> None:
    rows = re.findall(r"`(test_\w+)` in `(tests/[\w/.]+)`", PAGE)
    assert len(rows) == 10
    assert [name for name, path in rows if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")] == []


def test_e2e_page_lists_every_test_file() -> None:
    page = (ROOT / "docs/development/e2e.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(\w+/test_\w+\.py)`", page))
    files = {str(path.relative_to(ROOT / "e2e")) for path in (ROOT / "e2e").glob("*/test_*.py")}
    assert listed == {path for path in files if not path.startswith("admission/")}
