"""Rules about the tree itself: names, folders, words and links."""

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("cli", "common", "crds", "nodeagent", "operator")

MIRRORS = frozenset({"Assignment", "HealthReason", "HealthState", "Recovery", "Statistics"})
"""Classes of the API that the agent has as well: it runs on every GPU node and does not import pydantic."""

MAX_MODULES = 14
MAX_LINES = 400
MAX_README_LINES = 130
MAX_TEST_NAME = 72

WORDS = (
    {"tell", "tells", "told", "telling"},
    {"somebody", "nobody", "whoever", "whosever"},
    {"stand", "stands", "stood"},
    {"anew", "whatever"},
)
"""Words that the field does not use this way (docs/development/style.md)."""

MAX_PER_THOUSAND_IN_CODE = 0.5
MAX_PER_THOUSAND_IN_DOCUMENTS = 0.8


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    """Modules that are not generated, below these folders; of the whole tree when none is named."""
    found = tracked(*([f"{folder}/*.py" for folder in folders] or ["*.py"]))
    return [path for path in found if not path.name.endswith("_pb2.py")]


def public_classes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def prose(path: Path) -> str:
    """Comments and docstrings of a module."""
    return " ".join(re.findall(r"#.*|\"\"\"(?:.|\n)*?\"\"\"", path.read_text(encoding="utf-8")))


def rates(text: str) -> dict[str, float]:
    """Occurrences per thousand words, by group of `WORDS`."""
    words = Counter(word.lower() for word in re.findall(r"[A-Za-z']+", text))
    total = max(words.total(), 1)
    return {", ".join(sorted(group)): 1000 * sum(words[word] for word in group) / total for group in WORDS}


def test_public_class_names_are_unique() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in python_files(*PRODUCT):
        for name in public_classes(path):
            homes[name].add(str(path.relative_to(ROOT)))
    twice = {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in MIRRORS} == {}
    folders = {name: [path.split("/")[0] for path in twice.get(name, ())] for name in MIRRORS}
    assert folders == {name: ["crds", "nodeagent"] for name in MIRRORS}


def test_folders_hold_at_most_fourteen_modules() -> None:
    modules = Counter(str(path.parent.relative_to(ROOT)) for path in python_files() if path.stem != "__init__")
    assert {folder: count for folder, count in modules.items() if count > MAX_MODULES} == {}


def test_files_stay_under_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()
    }
    assert {name: length for name, length in lengths.items() if length >= MAX_LINES} == {}


def test_test_names_are_short() -> None:
    names = {
        name
        for path in python_files("tests", "e2e")
        for name in re.findall(r"\bdef (test_\w+)", path.read_text(encoding="utf-8"))
    }
    assert sorted(name for name in names if len(name) > MAX_TEST_NAME) == []


def test_the_operator_folder_is_not_a_package() -> None:
    """It would hide the standard library's `operator` from everything that runs in the repository's root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_comments_use_the_words_of_the_field() -> None:
    measured = rates(" ".join(prose(path) for path in python_files(*PRODUCT)))
    assert {words: rate for words, rate in measured.items() if rate > MAX_PER_THOUSAND_IN_CODE} == {}


def test_documents_use_the_words_of_the_field() -> None:
    measured = rates(" ".join(path.read_text(encoding="utf-8") for path in tracked("*.md")))
    assert {words: rate for words, rate in measured.items() if rate > MAX_PER_THOUSAND_IN_DOCUMENTS} == {}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def links() -> Iterator[tuple[str, str]]:
    for path in tracked("*.md"):
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield str(path.relative_to(ROOT)), target


def anchors(document: Path) -> set[str]:
    """The fragments that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("document", "target"), sorted(set(links())))
def test_links_lead_somewhere(document: str, target: str) -> None:
    name, _, fragment = target.partition("#")
    path = (ROOT / document).parent / name if name else ROOT / document
    assert path.exists()
    if fragment:
        assert fragment in anchors(path)


def test_workflows_call_existing_targets() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    called = {
        word
        for path in tracked(".github/workflows/*")
        for line in re.findall(r"run: make (.+)", path.read_text(encoding="utf-8"))
        for word in line.split()
        if re.fullmatch(r"[a-z0-9-]+", word)
    }
    assert called
    assert called <= targets
