"""The health that Argo CD computes by the scripts of config/argocd: gopher-lua, its interpreter, with its libraries."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gpufleet_e2e.support.programs.go_program import ask
from gpufleet_testbed import repository_root

CONFIG_MAP = repository_root() / "config" / "argocd" / "argocd-cm.yaml"


def script(kind: str) -> str:
    """Returns the health script of a kind of gpufleet.dev."""
    data = yaml.safe_load(CONFIG_MAP.read_text(encoding="utf-8"))["data"]
    return str(data[f"resource.customizations.health.gpufleet.dev_{kind}"])


def health(kind: str, objects: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns status and message of each object."""
    found = ask("argohealth", {"script": script(kind), "items": list(objects)})
    return [(one["status"], one["message"]) for one in found]
