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


def test_failed_step_is_reported() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="reason"), Progress(stream, lambda: 0.0).step("building"):
        raise ValueError("reason")
    assert stream.getvalue() == "   0.0 s  building failed\n"


def test_terminal_overwrites_the_running_step() -> None:
    stream = Terminal()
    with Progress(stream, lambda: 0.0).step("building"):
        pass
    shown = stream.getvalue()
    assert "building ..." in shown
    assert shown.endswith("\r   0.0 s  building\n")


def test_step_can_end_with_another_text() -> None:
    stream = io.StringIO()
    with Progress(stream, lambda: 0.0).step(lambda: "1 of 2", done="both"):
        pass
    assert stream.getvalue() == "   0.0 s  both\n"


def test_a_terminal_shows_overlapping_steps_on_one_line() -> None:
    stream = Terminal()
    progress = Progress(stream, lambda: 0.0)
    with progress.step("first"):
        with progress.step(lambda: "second"):
            progress.say("between")
        assert "0.0 s  first ... | 0.0 s  second ..." in stream.getvalue()
        assert "\r   0.0 s  second\n0.0 s  first ..." in stream.getvalue()
