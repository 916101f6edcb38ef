import io

import pytest

from gpufleet_testbed.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_per_step_with_its_duration() -> None:
    times = iter([10.0, 12.5])
    stream = io.StringIO()
    with Progress(stream, lambda: next(times)).step("building"):
        pass
    assert stream.getvalue() == "   2.5 s  building\n"


def test_a_failed_step_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="reason"), Progress(stream, lambda: 0.0).step("building"):
        raise ValueError("reason")
    assert stream.getvalue() == "   0.0 s  building failed\n"


def test_a_terminal_shows_the_running_step_and_overwrites_it() -> None:
    stream = Terminal()
    with Progress(stream, lambda: 0.0).step("building"):
        pass
    shown = stream.getvalue()
    assert "building ..." in shown
    assert shown.endswith("\r   0.0 s  building\n")
