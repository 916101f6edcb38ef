"""The command line, as the chart and people write it."""

from datetime import timedelta

import pytest

from gpufleet_operator.settings import parse


def test_defaults() -> None:
    settings = parse([])

    assert (settings.host, settings.port) == ("0.0.0.0", 8080)  # noqa: S104 - as the chart has it
    assert settings.resource == "gpufleet.dev/gpu"
    assert settings.limits().stale_after == timedelta(seconds=90)
    assert settings.limits().unschedulable_grace == timedelta(seconds=5)


def test_everything_can_be_set() -> None:
    settings = parse(
        [
            "--resource",
            "nvidia.com/gpu",
            "--stale-after-seconds",
            "30",
            "--sweep-seconds",
            "2.5",
            "--resync-seconds",
            "60",
            "--unschedulable-grace-seconds",
            "1",
            "--listen",
            "[::1]:9",
            "--log-level",
            "debug",
            "--log-format",
            "console",
        ]
    )

    assert (settings.host, settings.port) == ("::1", 9)
    assert settings.limits().resource == "nvidia.com/gpu"
    assert settings.sweep_seconds == 2.5


BAD = {
    "--sweep-seconds 0": "0 must be above 0",
    "--sweep-seconds nan": "nan must be above 0",
    "--listen 8080x": "must be HOST:PORT",
    "--listen h:70000": "must be HOST:PORT",
    "--resource gpu": "must be an extended resource",
    "--log-level loud": "invalid choice",
}


@pytest.mark.parametrize(("line", "message"), BAD.items(), ids=BAD.keys())
def test_bad_input_is_named_and_ends_with_status_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
