"""Builds the simulated `libnvidia-ml.so.1` with the system's C compiler, in about a second."""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from gpufleet_simgpu.clients import CONTROL

SOURCES = Path(__file__).resolve().parents[1] / "nvml"
LIBRARY = "libnvidia-ml.so.1"
_FLAGS = (
    "-std=c11",
    "-D_POSIX_C_SOURCE=200809L",
    "-O2",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-Wl,-soname,{LIBRARY}",
)


class CompilerError(RuntimeError):
    """The C compiler is missing, or failed."""


def compiler() -> list[str]:
    """Returns the compiler's command: `$CC`, else gcc, else cc.

    Raises:
        CompilerError: None is installed.
    """
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["gcc"], ["cc"]]:
        if shutil.which(command[0]):
            return command
    wanted = f"the compiler that CC names, `{named[0]}`," if named else "gcc"
    raise CompilerError(
        f"simulated GPUs need {wanted} which is not installed (Debian, Ubuntu: apt-get install gcc libc6-dev)"
    )


def build_library(out_dir: Path) -> Path:
    """Builds the library into `out_dir`, which may be missing. Processes that use an older one keep it.

    Returns:
        Path of the library.

    Raises:
        CompilerError: The compiler is missing or failed; the message contains its output.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".build-") as scratch:
        made = Path(scratch) / LIBRARY
        sources = sorted(str(path) for path in SOURCES.glob("*.c"))
        command = [*compiler(), *_FLAGS, *sources, "-lm", "-ldl", "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompilerError(f"{shlex.join(command[:1])} failed with {done.returncode}:\n{done.stderr.strip()}")
        (out_dir / CONTROL).touch()
        return made.replace(out_dir / LIBRARY)
