"""Builds the cluster's binaries from pinned Go modules into a cache, once per version."""

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.host.file_lock import locked
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import GO_MINIMUM, LOCAL_TOOLS, Tool

_MODULES = Path(__file__).parent / "modules"
_GO_ELSEWHERE = Path("/usr/local/go/bin/go")
_FETCHES_TOOLCHAINS = (1, 21)
_BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


def build_key(tool: Tool, modules: Path = _MODULES, machine: str = platform.machine()) -> str:
    """Short hash of everything that decides what the binaries are: modules, sums, flags and architecture."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((modules / tool.name / name).read_bytes())
    digest.update(repr((tool.commands, tool.tags, tool.ldflags, _BUILD_FLAGS, machine)).encode())
    return digest.hexdigest()[:10]


def tool_dir(tool: Tool, cache: Path, modules: Path = _MODULES) -> Path:
    """Where the binaries of a tool live in the cache."""
    return cache / "tools" / f"{tool.name}-{tool.version}-{build_key(tool, modules)}"


def build_command(go: str, tool: Tool, package: str, output: Path) -> list[str]:
    """The go command line that makes one binary."""
    tags = [f"-tags={','.join(tool.tags)}"] if tool.tags else []
    return [go, "build", *_BUILD_FLAGS, *tags, f"-ldflags={' '.join(tool.ldflags)}", "-o", str(output), package]


def go_version(text: str) -> tuple[int, ...]:
    """The version in the output of `go version`, as numbers; empty when there is none."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def find_go(runner: Runner = run) -> str:
    """A Go command that can build the tools.

    Raises:
        HostError: there is none, or it is too old to fetch a newer toolchain by itself.
    """
    wanted = ".".join(map(str, GO_MINIMUM))
    fix = (
        f"install Go {wanted} or newer (https://go.dev/dl; Debian 12's own golang is too old), or set "
        "GPUFLEET_CLUSTER_ASSETS to a folder that holds the binaries"
    )
    go = shutil.which("go") or (str(_GO_ELSEWHERE) if _GO_ELSEWHERE.exists() else None)
    if go is None:
        raise HostError([Problem("Go is not installed, and the cluster's binaries are not built yet", fix)])
    found = go_version(runner([go, "version"]).stdout)
    if found < _FETCHES_TOOLCHAINS:
        raise HostError([Problem(f"{go} is version {'.'.join(map(str, found))}, too old", fix)])
    return go


def build_environment(found: Sequence[int], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for the build; a Go that is too old for the modules may fetch the right toolchain."""
    env = {"CGO_ENABLED": "0", "GOWORK": "off"}
    if tuple(found) < GO_MINIMUM and "GOTOOLCHAIN" not in environ:
        env["GOTOOLCHAIN"] = "auto"
    return env


def ensure_tools(
    cache: Path, progress: Progress, *, tools: Sequence[Tool] = LOCAL_TOOLS, runner: Runner = run
) -> dict[str, Path]:
    """Build what the cache lacks.

    Returns:
        The path of each binary by its name.

    Raises:
        HostError: something has to be built and Go is missing.
        ClusterError: a build failed; the message holds what go said.
    """
    missing = [tool for tool in tools if not _complete(tool, tool_dir(tool, cache))]
    if missing:
        go = find_go(runner)
        with locked(cache / "tools"):
            _build(
                go, [tool for tool in missing if not _complete(tool, tool_dir(tool, cache))], cache, progress, runner
            )
    return {name: tool_dir(tool, cache) / name for tool in tools for name, _ in tool.commands}


def _complete(tool: Tool, folder: Path) -> bool:
    return all((folder / name).is_file() for name, _ in tool.commands)


def _build(go: str, tools: Sequence[Tool], cache: Path, progress: Progress, runner: Runner) -> None:
    total = sum(len(tool.commands) for tool in tools)
    if total:
        progress.say(f"Building {total} binaries with {go}; all 11 take about 9 minutes on 2 cores, once")
    env = build_environment(go_version(runner([go, "version"]).stdout), os.environ)
    count = 0
    for tool in tools:
        # Binaries move into place all together: a folder that exists is complete.
        with tempfile.TemporaryDirectory(dir=cache / "tools", prefix=f".{tool.name}-") as scratch:
            staging = Path(scratch) / tool.name
            staging.mkdir()
            for name, package in tool.commands:
                count += 1
                with progress.step(f"[{count}/{total}] building {name} ({tool.module} {tool.version})"):
                    command = build_command(go, tool, package, staging / name)
                    runner(command, timeout=None, env=env, cwd=_MODULES / tool.name)
            target = tool_dir(tool, cache)
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
