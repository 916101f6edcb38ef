"""Writes the CRDs from the models, into `crds/` and into the chart: `python -m gpufleet_api.generate [--check]`.

Both copies are committed, so that a reader, `kubectl apply -f crds/` and Helm need no Python. A unit test compares them
with the models.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from gpufleet_api.crd import RESOURCES, ApiResource

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout: generation is a development task."""

FOLDERS: Final = ("crds", "charts/gpufleet/files/crds")

_HEADER: Final = "# Generated from crds/gpufleet_api by `make crds`: change the models, not this file.\n"


def render(resource: ApiResource) -> str:
    """The text of the CRD's file."""
    return _HEADER + yaml.safe_dump(resource.definition(), sort_keys=False, allow_unicode=True, width=120)


def files() -> Mapping[Path, str]:
    """Every generated file, by its path below `ROOT`."""
    texts = {f"{resource.plural}.yaml": render(resource) for resource in RESOURCES}
    return {Path(folder, name): text for folder in FOLDERS for name, text in texts.items()}


def stale(root: Path = ROOT) -> list[Path]:
    """Generated files that are missing or differ from the models, below `root`."""
    return [path for path, text in files().items() if not _holds(root / path, text)]


def write(root: Path = ROOT) -> list[Path]:
    """Write what is stale and return it."""
    texts = files()
    changed = stale(root)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], encoding="utf-8")
    return changed


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(argv: list[str] | None = None) -> int:
    """Command line; the exit code is 1 when `--check` finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m gpufleet_api.generate", description="Write the CRDs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args(argv).check
    changed = stale() if check else write()
    for path in changed:
        sys.stdout.write(f"{path} is stale: run `make crds`\n" if check else f"wrote {path}\n")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
