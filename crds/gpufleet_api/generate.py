"""Writes the CRDs to `crds/` and to the chart: `python -m gpufleet_api.generate [--check]`.

Both copies are committed, so that `kubectl apply -f crds/` and Helm need no Python. So is the schema for Kustomize. A
unit test compares them with the models.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from gpufleet_api import kustomize
from gpufleet_api.crd import RESOURCES, ApiResource

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""

FOLDERS: Final = ("crds", "charts/gpufleet/files/crds")

KUSTOMIZE: Final = Path("crds", "kustomize", "openapi.json")
"""Not beside the CRDs: `kubectl apply -f crds/` reads every JSON file there."""

_HEADER: Final = "# Generated from crds/gpufleet_api by `make crds`: change the models, not this file.\n"


class _PlainDumper(yaml.SafeDumper):
    """Writes equal parts out: tools that extract schemas do not read aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature of PyYAML
        return True


def render(resource: ApiResource) -> str:
    return _HEADER + yaml.dump(
        resource.definition(), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120
    )


@cache
def files() -> Mapping[Path, str]:
    """Returns the content of every generated file by its path below `ROOT`."""
    texts = {f"{resource.plural}.yaml": render(resource) for resource in RESOURCES}
    found = {Path(folder, name): text for folder in FOLDERS for name, text in texts.items()}
    return {**found, KUSTOMIZE: kustomize.render()}


def stale(root: Path = ROOT) -> list[Path]:
    """Returns the generated files below `root` that are missing or differ from the models."""
    return [path for path, text in files().items() if not _holds(root / path, text)]


def write(root: Path = ROOT) -> list[Path]:
    """Writes the stale files and returns their paths."""
    texts = files()
    changed = stale(root)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], encoding="utf-8")
    return changed


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 when `--check` finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m gpufleet_api.generate", description="Write the CRDs.")
    parser.add_argument("--check", action="store_true", help="do not write; exit with 1 when a file is stale")
    check = parser.parse_args(argv).check
    changed = stale() if check else write()
    for path in changed:
        sys.stdout.write(f"{path} is stale: run `make crds`\n" if check else f"wrote {path}\n")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
