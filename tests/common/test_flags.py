"""The flags of agent and operator have the same style: a help text, and a default where there is one."""

import argparse
from collections.abc import Callable
from importlib.metadata import version

import pytest

from gpufleet_agent.settings import parse as parse_agent
from gpufleet_common.flags import FlagParser, address, extended_resource, optional, seconds, whole_number
from gpufleet_operator.settings import parse as parse_operator


def parse_with(convert: Callable[[str], object], text: str) -> object:
    parser = FlagParser(exit_on_error=False)
    parser.flag("--x", None, "a value", type=convert)
    return parser.parse_args([f"--x={text}"]).x


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (seconds(60), "0.5", 0.5),
        (seconds(60), "60", 60.0),
        (whole_number(64), "64", 64),
        (extended_resource, "nvidia.com/gpu.shared", "nvidia.com/gpu.shared"),
        (optional(extended_resource), "", ""),
        (address, "0.0.0.0:8080", ("0.0.0.0", 8080)),  # noqa: S104 - the chart's
        (address, "[::1]:9", ("::1", 9)),
        (address, ":9", ("", 9)),
    ],
)
def test_a_good_value_is_converted(convert: Callable[[str], object], text: str, value: object) -> None:
    assert parse_with(convert, text) == value


@pytest.mark.parametrize(
    ("convert", "text", "message"),
    [
        (seconds(60), "0.009", "invalid value: '0.009': must be a number of seconds from 0.01 to 60"),
        (seconds(60), "nan", "invalid value: 'nan': must be a number of seconds from 0.01 to 60"),
        (seconds(60), "1s", "invalid value: '1s': must be a number of seconds from 0.01 to 60"),
        (whole_number(64), "65", "invalid value: '65': must be a whole number from 1 to 64"),
        (whole_number(64), "1.5", "invalid value: '1.5': must be a whole number from 1 to 64"),
        (extended_resource, "gpu", "invalid value: 'gpu': must be an extended resource such as example.com/gpu"),
        (extended_resource, "kubernetes.io/gpu", "is reserved for Kubernetes"),
        (address, "8080", "invalid value: '8080': must be HOST:PORT"),
        (address, "1:2:3", "invalid value: '1:2:3': must be HOST:PORT"),
        (address, "::1:9", "invalid value: '::1:9': must be HOST:PORT"),
        (address, "[::1:9", "invalid value: '[::1:9': must be HOST:PORT"),
        (address, "h:70000", "invalid value: 'h:70000': must be HOST:PORT"),
    ],
)
def test_a_bad_value_is_named_with_what_is_required(convert: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=r"argument --x") as caught:
        parse_with(convert, text)
    assert message in str(caught.value)


PROCESSES: dict[str, Callable[[str], object]] = {
    "gpufleet-agent": lambda flag: parse_agent([flag], {}),
    "gpufleet-operator": lambda flag: parse_operator([flag]),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_version_flag_prints_the_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        PROCESSES[name]("--version")
    assert caught.value.code == 0
    assert capsys.readouterr() == (f"{name} {version('gpufleet')}\n", "")


@pytest.mark.parametrize("name", PROCESSES)
def test_wrong_usage_prints_the_error_without_all_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        PROCESSES[name]("--log-level=x")
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith(f"{name}: error: argument --log-level: invalid choice: 'x'")
    assert (out, second) == ("", f"Try '{name} --help'.")


@pytest.mark.parametrize("parse", [lambda: parse_agent(["--help"], {}), lambda: parse_operator(["--help"])])
def test_every_flag_has_a_help_text(
    parse: Callable[[], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        parse()
    assert caught.value.code == 0
    options = capsys.readouterr().out.partition("options:")[2].strip().split("\n  -")
    assert len(options) > 8
    for option in options:
        assert len(option.split()) > 4, option
        assert "(default: )" not in option
        assert "(default: None)" not in option
