"""Command lines, cache folders and cache keys of the binaries that are built from pinned Go modules."""

import hashlib
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.versions import GO_MINIMUM, Tool

MODULES = Path(__file__).parent / "modules"
_GO_ELSEWHERE = Path("/usr/local/go/bin/go")
_FETCHES_TOOLCHAINS = (1, 21)
# The linker drops debug information; a compiler that does not write it needs a tenth less time.
_BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
_COMPILER_GOGC = "300"
"""The compiler collects its garbage less often than by default: it runs for seconds, and memory is there."""


def build_key(tool: Tool, modules: Path = MODULES, machine: str = platform.machine()) -> str:
    """Returns a short hash of everything that decides what the binaries are: modules, source, flags, architecture."""
    digest = hashlib.sha256()
    for path in sorted((modules / tool.folder).iterdir()):
        digest.update(path.read_bytes())
    digest.update(repr((tool.commands, tool.tags, tool.ldflags, _BUILD_FLAGS, machine)).encode())
    return digest.hexdigest()[:10]


def tool_dir(tool: Tool, cache: Path, modules: Path = MODULES) -> Path:
    """Returns the folder of a tool's binaries in the cache."""
    return cache / "tools" / f"{tool.name}-{tool.version}-{build_key(tool, modules)}"


def binary_paths(tool: Tool, cache: Path) -> dict[str, Path]:
    """Returns the path of each binary of a tool by its name."""
    folder = tool_dir(tool, cache)
    return {name: folder / name for name, _ in tool.commands}


def complete(tool: Tool, cache: Path) -> bool:
    """Returns whether the cache holds every binary of a tool."""
    return all(path.is_file() for path in binary_paths(tool, cache).values())


def build_command(go: str, tool: Tool, folder: Path) -> list[str]:
    """Returns the command line that builds all binaries of a tool into `folder`.

    One `go build` compiles packages that the binaries share once and uses every core to its end. It names a binary
    after the last element of its package; a tool of one binary may use another name.
    """
    names, packages = zip(*tool.commands, strict=True)
    output = str(folder / names[0]) if len(names) == 1 else f"{folder}/"
    return [go, "build", "-v", *_flags(tool), f"-ldflags={' '.join(tool.ldflags)}", "-o", output, *packages]


def list_command(go: str, tool: Tool) -> list[str]:
    """Returns the command line that prints every package that the binaries of a tool consist of, one per line."""
    return [go, "list", "-deps", *_flags(tool), *(package for _, package in tool.commands)]


def go_version(text: str) -> tuple[int, ...]:
    """Parses the output of `go version`; empty when it contains no version."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def find_go(runner: Runner = run) -> str:
    """Finds a Go command that can build the tools.

    Raises:
        HostError: Go is missing, or too old to fetch a newer toolchain by itself.
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
    """Returns the variables of a build; a Go that is too old for the modules may fetch the right toolchain."""
    env = {"CGO_ENABLED": "0", "GOWORK": "off"}
    if "GOGC" not in environ:
        env["GOGC"] = _COMPILER_GOGC
    if tuple(found) < GO_MINIMUM and "GOTOOLCHAIN" not in environ:
        env["GOTOOLCHAIN"] = "auto"
    return env


def _flags(tool: Tool) -> list[str]:
    return [*_BUILD_FLAGS, *([f"-tags={','.join(tool.tags)}"] if tool.tags else [])]
