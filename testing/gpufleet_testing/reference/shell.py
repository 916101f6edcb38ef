"""The shell commands that pages show: which are run on a cluster by a test, which by other tests, and which by none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpufleet_api.generate import ROOT

RUN_PAGES: Final = (
    "docs/operations/platforms.md",
    "docs/operations/install.md",
    "docs/operations/own-pods.md",
    "docs/operations/gitops.md",
    "docs/operations/gpu-maintenance.md",
    "docs/operations/faults.md",
    "docs/operations/cluster-autoscaler.md",
    "docs/operations/upgrade.md",
    "docs/operations/runbooks/agents.md",
    "docs/operations/runbooks/devices.md",
    "docs/operations/runbooks/operator.md",
    "docs/operations/runbooks/workloads.md",
    "docs/operations/troubleshooting.md",
    "docs/reference/cli.md",
    "docs/reference/conditions.md",
)
"""Pages whose commands e2e/docs/test_commands.py runs."""

OTHERWISE: Final = {
    "kubectl create namespace gpufleet-system": "every end-to-end test installs the chart; e2e/chart/test_install.py",
    "kubectl label namespace gpufleet-system": "as above",
    "helm upgrade --install gpufleet": "as above, with more values",
    "helm upgrade gpufleet": "e2e/chart/test_install.py, which also rolls back",
    "for program in": "e2e/images/test_images.py builds the images; nothing is pushed",
    "make manifests": "e2e/chart/test_gitops.py",
    "kubectl apply --server-side -f dist/install.yaml": "e2e/chart/test_gitops.py",
    "pipx install": "tests/cli/krew/test_krew.py; needs a package index for the dependencies",
    "uvx --from": "as above",
    "kubectl krew install": "tests/cli/krew/test_krew.py; krew is not installed",
    "gpufleet completion fish": "tests/cli/options/test_completion.py; fish is not installed",
    "kubectl -n gpufleet-system logs daemonset/gpufleet-agent --previous": "no container of the tests has ended before",
    "kubectl -n gpufleet-system logs deployment/gpufleet-operator --previous": "as above",
}
"""Beginnings of commands of these pages that other tests cover, or none can, and why."""

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE: Final = re.compile(r"`((?:kubectl )?gpufleet [a-z][^`]*)`")
_PROGRAMS: Final = ("kubectl", "helm", "gpufleet", "make", "for program", "pipx", "uvx", "source", "docker")


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """A command, with continued lines and here-documents."""

    page: str
    text: str

    @property
    def reason(self) -> str:
        """Why it is not run with the others of its page; empty: it is."""
        return next((why for start, why in OTHERWISE.items() if self.text.startswith(start)), "")

    def __str__(self) -> str:
        return f"{Path(self.page).stem}: {self.text.splitlines()[0]}"


def shell_commands(page: str) -> Iterator[ShellCommand]:
    """Yields the commands of a page, in its order."""
    for language, block in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        lines = iter(() if language else block.splitlines())
        for line in lines:
            if not line.startswith(_PROGRAMS):
                continue
            text = line
            while text.endswith("\\") or _open(text):
                text += f"\n{next(lines)}"
            yield ShellCommand(page, text)


def shown_outputs(page: str) -> Iterator[str]:
    """Yields the lines that the page shows as output of its commands, in blocks of the language `text`."""
    for language, block in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "text":
            yield from block.splitlines()


def comparable(line: str) -> str:
    """Returns a line of output without what differs between clusters: numbers, UUIDs, names of nodes and namespaces."""
    line = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID", line)
    line = re.sub(r"(\w-\d+)-[a-z0-9]{5,6}\b", r"\1-RANDOM", line)
    line = re.sub(r"\bfrom \S+ namespace", "from NAMESPACE namespace", line)
    return " ".join(re.sub(r"\d+", "0", line).split())


def command_lines(page: str) -> Iterator[str]:
    """Yields the arguments of `gpufleet` in the blocks and the text of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, block in _BLOCK.findall(text):
        if not language:
            yield from re.findall(r"^(?:\$ )?(?:kubectl |\.venv/bin/)?gpufleet ([a-z][^|>\n]*)", block, re.MULTILINE)
    for found in _INLINE.findall(_BLOCK.sub("", text)):
        yield found.removeprefix("kubectl ").removeprefix("gpufleet ").replace("\n", " ")


def _open(text: str) -> bool:
    """Returns whether a here-document, a loop or a quotation goes on in the next line."""
    here = re.search(r"<<'(\w+)'", text)
    if here:
        return not text.endswith(f"\n{here[1]}")
    if text.startswith("for "):
        return not text.endswith("\ndone")
    return text.count("'") % 2 == 1
