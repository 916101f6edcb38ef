import sys
import time
from pathlib import Path
from threading import Event

import pytest

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import follow, run


def test_output_and_input_pass_through(tmp_path: Path) -> None:
    assert run(["cat"], stdin="text").stdout == "text"
    assert run(["pwd"], cwd=tmp_path).stdout.strip() == str(tmp_path)
    assert run(["sh", "-c", "echo $WORD"], env={"WORD": "there"}).stdout == "there\n"


def test_failure_contains_the_command_and_its_output() -> None:
    with pytest.raises(ClusterError, match=r"exit status 3: sh -c .*\nbroken"):
        run(["sh", "-c", "echo broken >&2; exit 3"])
    assert run(["false"], check=False).returncode == 1


def test_missing_program_is_a_cluster_error() -> None:
    with pytest.raises(ClusterError, match="cannot run no-such-program"):
        run(["no-such-program"])


def test_program_is_killed_at_its_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"still running after 0\.1 s"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.1)
    assert time.monotonic() - start < 30


def test_follow_passes_each_line_of_standard_error_on(tmp_path: Path) -> None:
    lines: list[str] = []
    follow(["sh", "-c", "echo $A; echo one >&2; pwd >&2"], lines.append, stop=Event(), env={"A": "b"}, cwd=tmp_path)
    assert lines == ["one", str(tmp_path)]


def test_follow_fails_with_the_last_lines() -> None:
    lines: list[str] = []
    with pytest.raises(ClusterError, match=r"exit status 3: sh -c .*\nbroken\nat the end"):
        follow(["sh", "-c", "echo broken >&2; printf 'at the end' >&2; exit 3"], lines.append, stop=Event())
    assert lines == ["broken"]
    with pytest.raises(ClusterError, match="cannot run no-such-program"):
        follow(["no-such-program"], lines.append, stop=Event())


def test_follow_ends_the_program_when_it_is_stopped() -> None:
    stop, start = Event(), time.monotonic()
    with pytest.raises(ClusterError, match="exit status -15"):
        follow(["sh", "-c", "echo begun >&2; exec sleep 60"], lambda _: stop.set(), stop=stop)
    assert time.monotonic() - start < 30
