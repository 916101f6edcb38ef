"""The operator's command line."""

from datetime import timedelta

import pytest

from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.settings import parse


def test_defaults() -> None:
    settings = parse([])

    assert (settings.host, settings.port) == ("0.0.0.0", 8080)  # noqa: S104 - as the chart has it
    assert settings.limits().resources == Resources("gpufleet.dev/gpu", "gpufleet.dev/gpu-shared", 16)
    assert settings.limits().stale_after == timedelta(seconds=90)
    assert settings.limits().unschedulable_grace == timedelta(seconds=5)
    assert settings.leader_election == "true"


def test_every_flag_sets_its_setting() -> None:
    settings = parse(
        [
            "--resource",
            "nvidia.com/gpu",
            "--shared-resource",
            "example.com/part",
            "--shared-slots",
            "4",
            "--stale-after-seconds",
            "30",
            "--resync-interval-seconds",
            "2.5",
            "--relist-interval-seconds",
            "60",
            "--unschedulable-grace-seconds",
            "1",
            "--schedulers",
            "default-scheduler, volcano",
            "--forbidden-resources",
            "",
            "--tolerate-taints",
            "nvidia.com/gpu,dedicated",
            "--listen",
            "[::1]:9",
            "--log-level",
            "debug",
            "--log-format",
            "console",
        ]
    )

    assert (settings.host, settings.port) == ("::1", 9)
    assert settings.limits().resources == Resources("nvidia.com/gpu", "example.com/part", 4)
    assert settings.limits().pod_policy == PodPolicy(
        forbidden_resources=(),
        schedulers=("default-scheduler", "volcano"),
        tolerated_taints=("nvidia.com/gpu", "dedicated"),
    )
    assert settings.resync_interval_seconds == 2.5


def test_an_empty_shared_resource_disables_sharing() -> None:
    resources = parse(["--shared-resource", ""]).limits().resources

    assert resources.names == ("gpufleet.dev/gpu",)


BAD = {
    "--resync-interval-seconds 0": "invalid value: '0': must be a number of seconds from 0.01 to 3600",
    "--resync-interval-seconds nan": "invalid value: 'nan': must be a number of seconds from 0.01 to 3600",
    "--listen 8080x": "must be HOST:PORT",
    "--listen h:70000": "must be HOST:PORT",
    "--resource gpu": "must be an extended resource",
    "--shared-resource part": "must be an extended resource",
    "--shared-resource gpufleet.dev/gpu": "must differ, both are gpufleet.dev/gpu",
    "--shared-slots 0": "'0': must be a whole number from 1 to 64",
    "--shared-slots x": "'x': must be a whole number from 1 to 64",
    "--log-level loud": "invalid choice",
}


@pytest.mark.parametrize(("line", "message"), BAD.items(), ids=BAD.keys())
def test_an_invalid_flag_exits_with_status_2_and_a_message(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
