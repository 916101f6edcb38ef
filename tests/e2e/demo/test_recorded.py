"""What the demo of a recorded node shows."""

from typing import Any

import pytest
from rich.console import Console

from gpufleet_e2e.demo.recorded import RECORDING, health_changes, main, status_table

HEALTHY: dict[str, Any] = {"state": "Healthy"}
LOST = {"state": "Unhealthy", "reasons": [{"code": "DeviceLost"}], "warnings": [{"code": "HwSlowdown"}]}


def status(*healths: dict[str, Any]) -> dict[str, Any]:
    devices = [
        {"uuid": f"GPU-{index}2345678-0000", "index": index, "health": health, "temperatureCelsius": 40 + index}
        for index, health in enumerate(healths)
    ]
    return {"driverVersion": "580.1", "devices": devices}


def test_news_is_what_changed() -> None:
    assert list(health_changes({}, status(HEALTHY, HEALTHY))) == []
    assert list(health_changes(status(HEALTHY, HEALTHY), status(HEALTHY, LOST))) == [
        "GPU 1: Unhealthy: DeviceLost, HwSlowdown (warning)"
    ]
    assert list(health_changes(status(LOST), status(LOST))) == []
    assert list(health_changes(status(LOST), status(HEALTHY))) == ["GPU 0: Healthy"]


def test_what_is_not_known_is_a_dash() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115 - not read
    console.print(status_table(status(HEALTHY, LOST)))
    console.file.close()
    rows = [line.split() for line in console.export_text().splitlines() if "2345678" in line]
    assert [row[5] for row in rows] == ["-", "-"]
    assert "DeviceLost," in rows[1]


def test_the_recording_is_there() -> None:
    assert RECORDING.is_file()


def test_help_shows_the_recording_relative_to_the_repository(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["recorded", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "(default examples/recordings/hot.jsonl)" in " ".join(capsys.readouterr().out.split())
