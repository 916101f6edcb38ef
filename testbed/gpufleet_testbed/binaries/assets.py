"""Finds the cluster's binaries: the user's own, or the ones that the cache holds."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.binaries.go_build import ensure_tools
from gpufleet_testbed.config import ENV_ASSETS
from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.command import Runner, run, search_path
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import LOCAL_TOOLS, Tool

_VERSION_ARGS = {"kubectl": ("version", "--client"), "helm": ("version", "--short")}


@dataclass(frozen=True)
class Assets:
    """Where each binary is."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        """Path of a binary, ready for a command line."""
        return str(self.paths[name])

    @property
    def search_path(self) -> str:
        """A PATH that finds these binaries first."""
        return search_path(*dict.fromkeys(str(path.parent) for path in self.paths.values()))


def find_assets(
    cache: Path,
    progress: Progress,
    *,
    tools: Sequence[Tool] = LOCAL_TOOLS,
    environ: Mapping[str, str] = os.environ,
    runner: Runner = run,
) -> Assets:
    """The binaries of $GPUFLEET_CLUSTER_ASSETS if that is set, else those of the cache, built when missing.

    Raises:
        HostError: a binary is missing from the user's folder or can't be run; or see `ensure_tools`.
    """
    folder = environ.get(ENV_ASSETS)
    if folder:
        return _own_assets(Path(folder).resolve(), tools, progress, runner)
    return Assets(ensure_tools(cache, progress, tools=tools, runner=runner))


def version_command(binary: Path) -> list[str]:
    """How this binary is asked for its version."""
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
    asked = [path for name, path in paths.items() if name != "containerd-shim-runc-v2"]
    with ThreadPoolExecutor() as pool:
        for path, done in zip(asked, pool.map(lambda p: runner(version_command(p), check=False), asked), strict=True):
            if done.returncode != 0:
                problems.append(
                    Problem(f"{path} does not run: {done.stderr.strip()[:200]}", "use a build for this machine")
                )
            else:
                progress.say(f"          {path}: {done.stdout.strip().splitlines()[0]}")
    if problems:
        raise HostError(problems)
    return Assets(paths)
