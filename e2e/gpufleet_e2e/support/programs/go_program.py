"""Go programs of the tests, built from the folders of `gpufleet_e2e` that have a go.mod."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gpufleet_testbed import cache_dir
from gpufleet_testbed.binaries import go_build
from gpufleet_testbed.host.file_lock import locked

JsonObject = dict[str, Any]

_MODULES = Path(__file__).parents[2]
_BUILD_SECONDS = 400
"""The first build of kstatus compiles 260 packages."""
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


def ask(module: str, question: Mapping[str, Any]) -> list[JsonObject]:
    """Runs the program of a module with JSON as its input; returns the objects of its output, one per line."""
    text = json.dumps(question)
    done = subprocess.run([built(module)], input=text, capture_output=True, text=True, check=True, timeout=30)
    return [json.loads(line) for line in done.stdout.splitlines()]


def cached(module: str) -> Path:
    """Returns where the program of a module is once it is built."""
    sources = [path for name in ("go.mod", "go.sum", "main.go") if (path := _MODULES / module / name).exists()]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:10]
    return cache_dir() / "tools" / f"{module}-{key}" / module


@cache
def built(module: str, package: str = ".", *, flags: tuple[str, ...] = (), seconds: int = _BUILD_SECONDS) -> Path:
    """Builds the program of a module, unless the cache has it.

    Args:
        module: Name of its folder.
        package: What to build; by default the main package of the folder.
        flags: Additional flags of the build.
        seconds: After which the build fails.
    """
    program = cached(module)
    with locked(cache_dir() / "tools"):
        if not program.exists():
            command = [go_build.find_go(), "build", *_FLAGS, *flags, "-o", str(program), package]
            env = {**os.environ, "CGO_ENABLED": "0"}
            subprocess.run(command, cwd=_MODULES / module, check=True, timeout=seconds, env=env)
    return program


def module_dir(module: str, dependency: str) -> Path:
    """Returns the folder of a module that the module of a folder depends on; downloads it if needed."""
    go, folder = go_build.find_go(), _MODULES / module
    subprocess.run([go, "mod", "download", dependency], cwd=folder, check=True, timeout=_BUILD_SECONDS)
    command = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", dependency]
    return Path(
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    )
