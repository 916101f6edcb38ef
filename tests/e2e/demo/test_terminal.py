"""The narrator on a terminal and in a pipe."""

from collections.abc import Iterator
from io import StringIO

from rich.text import Text

from gpufleet_e2e.demo.terminal import PIPE_COLUMNS, Terminal, make_console


class TtyStream(StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def clock(*moments: float) -> Iterator[float]:
    return iter(moments)


def reported(stream: StringIO, **environ: str) -> str:
    """One step with one of each kind of line."""
    terminal = Terminal(make_console(stream, {"TERM": "xterm-256color", **environ}), 3, clock=lambda: 0.0)
    terminal.step("Start [it]", "because [it] matters")
    terminal.progress("going")
    terminal.ok("fine")
    terminal.fail("not fine")
    terminal.command("kubectl get pods")
    with terminal.live(lambda: Text("the table")):
        terminal.say("inside")
    return stream.getvalue()


def test_a_pipe_gets_plain_lines_without_control_codes() -> None:
    text = reported(StringIO())
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.splitlines() == [
        "",
        "[1/3] Start [it]",
        "  because [it] matters",
        "     0.0 s  going",
        "  ok  fine",
        "  FAIL  not fine",
        "  $ kubectl get pods",
        "  inside",
        "  the table",
    ]


def test_a_terminal_gets_colours_unless_no_color_is_set() -> None:
    assert "\x1b[1;32m" in reported(TtyStream())
    assert "\x1b[1;32m" not in reported(TtyStream(), NO_COLOR="1")


def test_the_width_is_the_readers_choice_in_a_pipe_too() -> None:
    assert make_console(StringIO(), {}).width == PIPE_COLUMNS
    assert make_console(StringIO(), {"COLUMNS": "72"}).width == 72


def test_long_lines_wrap_but_quotes_stay_whole() -> None:
    stream = StringIO()
    terminal = Terminal(make_console(stream, {"COLUMNS": "40"}), 1)
    terminal.say("word " * 20)
    terminal.quote("x" * 100)
    *wrapped, quoted = stream.getvalue().splitlines()
    assert all(len(line) <= 40 and line.startswith("  word") for line in wrapped)
    assert quoted == "  | " + "x" * 100


def test_long_quote_wraps_between_words_on_a_terminal() -> None:
    stream = TtyStream()
    terminal = Terminal(make_console(stream, {"COLUMNS": "40", "NO_COLOR": "1", "TERM": "xterm"}), 1)
    terminal.quote("short\n" + "word " * 12)
    assert stream.getvalue().splitlines() == [
        "  | short",
        "  | word word word word word word word",
        "  |   word word word word word",
    ]


def test_each_step_is_timed_from_its_begin_to_the_next() -> None:
    moments = clock(0.0, 1.0, 3.0, 3.0, 7.5, 9.0)
    terminal = Terminal(make_console(StringIO(), {}), 2, clock=lambda: next(moments))
    terminal.step("first", "why")
    terminal.step("second", "why")
    terminal.finish()
    assert [(one.title, one.seconds) for one in terminal.times] == [("first", 2.0), ("second", 4.5)]
    assert terminal.total_seconds == 9.0
