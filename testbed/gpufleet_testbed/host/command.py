"""Runs programs of this machine; an error contains what the program wrote."""

import os
import select
import shlex
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event
from typing import Protocol

from gpufleet_testbed.errors import ClusterError

_MAX_OUTPUT = 2000
"""Characters of a program's output in an error message."""
_MAX_LINES = 40
_POLL_SECONDS = 0.2


def search_path(*first: str) -> str:
    """Returns a PATH with these folders first, then this process's own, then those of system programs.

    `su` without `-` leaves the folders of system programs out.
    """
    own = os.environ.get("PATH", os.defpath).split(":")
    return ":".join(dict.fromkeys([*first, *own, "/usr/sbin", "/sbin"]))


class Runner(Protocol):
    """Runs a program to its end, as `run` does. Tests pass a fake."""

    def __call__(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess[str]: ...


class Follower(Protocol):
    """Runs a program and passes its lines on while it runs, as `follow` does. Tests pass a fake."""

    def __call__(
        self,
        args: Sequence[str],
        on_line: Callable[[str], None],
        *,
        stop: Event,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None: ...


def run(
    args: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    timeout: float | None = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> CompletedProcess[str]:
    """Runs a program and collects its output.

    Args:
        args: Program and arguments; no shell is involved.
        check: Raise when the exit status is not 0.
        stdin: Text for its standard input; without it the input is empty.
        timeout: Seconds until it is killed; None means no limit.
        env: Variables to set on top of this process's own.
        cwd: Folder to run in.

    Raises:
        ClusterError: It could not be started, or failed and `check` is set.
        TimeoutError: It was still running after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            args,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=_environment(env),
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise _not_started(args, error) from error
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"still running after {timeout:g} s: {shlex.join(args)}") from error
    if check and done.returncode != 0:
        raise _failed(args, done.returncode, done.stderr.strip() or done.stdout.strip())
    return done


def follow(
    args: Sequence[str],
    on_line: Callable[[str], None],
    *,
    stop: Event,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Runs a program of any duration and calls `on_line` for each line that it writes to standard error.

    Args:
        args: Program and arguments; no shell is involved.
        on_line: Called in this thread, without the line's end.
        stop: Ends the program when it is set.
        env: Variables to set on top of this process's own.
        cwd: Folder to run in.

    Raises:
        ClusterError: It could not be started, failed, or was stopped.
    """
    last: deque[str] = deque(maxlen=_MAX_LINES)
    try:
        process = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(env),
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise _not_started(args, error) from error
    with process:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        rest = b""
        while True:
            if stop.is_set():
                process.terminate()
            if not select.select([process.stderr], [], [], _POLL_SECONDS)[0]:
                continue
            chunk = os.read(process.stderr.fileno(), 1 << 16)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                last.append(line.decode(errors="replace"))
                on_line(last[-1])
    if process.returncode != 0:
        raise _failed(args, process.returncode, "\n".join([*last, rest.decode(errors="replace")]).strip())


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "PATH": search_path(), **(env or {})}


def _not_started(args: Sequence[str], error: FileNotFoundError) -> ClusterError:
    return ClusterError(f"cannot run {args[0]}: {error.strerror}: {error.filename}")


def _failed(args: Sequence[str], status: int, output: str) -> ClusterError:
    return ClusterError(f"exit status {status}: {shlex.join(args)}\n{output[-_MAX_OUTPUT:]}")
