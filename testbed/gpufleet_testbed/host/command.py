"""Running a program to its end, with errors that show what it said."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from gpufleet_testbed.errors import ClusterError

_SHOWN = 2000


def search_path(*first: str) -> str:
    """A PATH with these folders first, then this process's own, then the system programs' (`su` leaves them out)."""
    own = os.environ.get("PATH", os.defpath).split(":")
    return ":".join(dict.fromkeys([*first, *own, "/usr/sbin", "/sbin"]))


class Runner(Protocol):
    """How the test bed runs programs; tests put a fake in its place."""

    def __call__(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess[str]:
        """Run `args` to the end; see `run`."""


def run(
    args: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    timeout: float | None = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> CompletedProcess[str]:
    """Run a program and collect what it writes.

    Args:
        args: program and arguments; no shell is involved.
        check: raise when the exit status is not 0.
        stdin: text for its standard input; without it the input is empty.
        timeout: seconds until it is killed; None waits for ever.
        env: variables to set on top of this process's own.
        cwd: folder to run in.

    Raises:
        ClusterError: it could not be started, or failed and `check` is set.
        TimeoutError: it was still running after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            args,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "PATH": search_path(), **(env or {})},
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"can't run {args[0]}: {error.strerror}: {error.filename}") from error
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"still running after {timeout:g} s: {shlex.join(args)}") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_SHOWN:]
        raise ClusterError(f"exit status {done.returncode}: {shlex.join(args)}\n{said}")
    return done
