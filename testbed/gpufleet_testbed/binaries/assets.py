"""Finds the cluster's binaries: those of a folder of the user, or those of the cache."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.binaries.tool_builds import ToolBuilds
from gpufleet_testbed.config import ENV_ASSETS, ENV_KUBERNETES
from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.command import Follower, Runner, follow, run, search_path
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import KUBERNETES, KUBERNETES_RELEASES, LOCAL_TOOLS, Tool

_VERSION_ARGS = {
    "kubectl": ("version", "--client"),
    "kubeadm": ("version", "--output=short"),
    "helm": ("version", "--short"),
}


@dataclass(frozen=True)
class Assets:
    """The path of each binary by its name."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        """Returns the path of a binary as a word of a command line."""
        return str(self.paths[name])

    @property
    def search_path(self) -> str:
        """A PATH that finds these binaries first."""
        return search_path(*dict.fromkeys(str(path.parent) for path in self.paths.values()))


@dataclass(frozen=True)
class PendingAssets:
    """Binaries that may still be built."""

    assets: Assets
    wait: Callable[..., None]
    """Waits until the binaries of these names are there, or all; see `ToolBuilds.wait`."""


@contextmanager
def prepare_assets(
    cache: Path,
    progress: Progress,
    *,
    tools: Sequence[Tool] = LOCAL_TOOLS,
    environ: Mapping[str, str] = os.environ,
    runner: Runner = run,
    follower: Follower = follow,
) -> Iterator[PendingAssets]:
    """Finds the binaries of $GPUFLEET_CLUSTER_ASSETS if that is set, else those of the cache; builds missing ones.

    They are built while the block runs, and are complete when it has ended.

    Raises:
        HostError: A binary is missing from the user's folder or does not run; or see `ToolBuilds`.
    """
    folder = environ.get(ENV_ASSETS)
    if folder:
        yield PendingAssets(_own_assets(Path(folder).resolve(), tools, progress, runner), lambda *_: None)
        return
    with ToolBuilds(cache, progress, tools, runner=runner, follower=follower) as builds:
        yield PendingAssets(Assets(builds.paths), builds.wait)


def find_assets(
    cache: Path,
    progress: Progress,
    *,
    tools: Sequence[Tool] = LOCAL_TOOLS,
    environ: Mapping[str, str] = os.environ,
    runner: Runner = run,
    follower: Follower = follow,
) -> Assets:
    """Finds or builds the binaries, as `prepare_assets` does, and waits for all of them."""
    with prepare_assets(cache, progress, tools=tools, environ=environ, runner=runner, follower=follower) as pending:
        return pending.assets


def version_command(binary: Path) -> list[str]:
    """Returns the command line that prints a binary's version."""
    return [str(binary), *_VERSION_ARGS.get(binary.name, ("--version",))]


def _own_assets(folder: Path, tools: Sequence[Tool], progress: Progress, runner: Runner) -> Assets:
    expected = {name: tool for tool in tools for name, _ in tool.commands}
    paths = {name: folder / name for name in expected}
    problems = []
    for name, path in paths.items():
        if not path.is_file():
            tool = expected[name]
            problems.append(Problem(f"{ENV_ASSETS}={folder} has no {name}", f"put {name} of {tool.version} there"))
        elif not os.access(path, os.X_OK):
            problems.append(Problem(f"{path} is not executable", f"chmod +x {path}"))
    if problems:
        raise HostError(problems)
    # containerd's shim prints its version with -v only, and is released with containerd.
    checked = [path for name, path in paths.items() if name != "containerd-shim-runc-v2"]
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda path: runner(version_command(path), check=False), checked)
        for path, done in zip(checked, results, strict=True):
            if done.returncode != 0:
                problems.append(
                    Problem(f"{path} does not run: {done.stderr.strip()[:200]}", "use a build for this machine")
                )
                continue
            shown = done.stdout.strip().splitlines()[0]
            progress.say(f"          {path}: {shown}")
            problems += _wrong_kubernetes(expected[path.name], path, shown)
    if problems:
        raise HostError(problems)
    return Assets(paths)


def _wrong_kubernetes(tool: Tool, path: Path, shown: str) -> list[Problem]:
    """Returns whether a binary of Kubernetes is of another minor version: the configuration depends on it."""
    found = re.search(r"\bv(\d+\.\d+)\.", shown)
    expected = tool.version.removeprefix("v").rpartition(".")[0]
    if tool.module != KUBERNETES.module or found is None or found[1] == expected:
        return []
    # kubeadm is needed for nodes of kind only, which have one version.
    selectable = tool.variant and found[1] in KUBERNETES_RELEASES
    fix = f"set {ENV_KUBERNETES}={found[1]}" if selectable else f"put {tool.version} there"
    return [Problem(f"{path} is of Kubernetes {found[1]}, not {expected}", fix)]
