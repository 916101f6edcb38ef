"""The statuses of kstatus, by which Flux, `kubectl wait` plugins and Config Sync judge an object: its own Go code."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gpufleet_testbed import cache_dir
from gpufleet_testbed.binaries import go_build
from gpufleet_testbed.host.file_lock import locked

_MODULE = Path(__file__).parents[2] / "kstatus"
_BUILD_SECONDS = 400
"""The first build compiles 260 packages."""


def statuses(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the status of each object: Current, InProgress, Failed, Terminating, NotFound or Unknown."""
    text = json.dumps({"items": list(objects)})
    done = subprocess.run([_program()], input=text, capture_output=True, text=True, check=True, timeout=30)
    return [json.loads(line)["status"] for line in done.stdout.splitlines()]


@cache
def _program() -> Path:
    """Builds the program, unless the cache has it."""
    sources = [_MODULE / name for name in ("go.mod", "go.sum", "main.go")]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:10]
    program = cache_dir() / "tools" / f"kstatus-{key}" / "kstatus"
    with locked(cache_dir() / "tools"):
        if not program.exists():
            go = go_build.find_go()
            command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(program), "."]
            subprocess.run(
                command, cwd=_MODULE, check=True, timeout=_BUILD_SECONDS, env={**os.environ, "CGO_ENABLED": "0"}
            )
    return program
