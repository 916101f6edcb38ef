from pathlib import Path

import pytest

from gpufleet_agent.devices.xids.policy import XidPolicy, XidWithoutActionPolicy
from gpufleet_agent.plugin.allocator import PodMatching
from gpufleet_agent.plugin.inject.strategies import DeviceListStrategy, InjectorSettings
from gpufleet_agent.resources import MigStrategy, Served
from gpufleet_agent.settings import AgentSettings, parse


def test_defaults_with_the_node_name_of_the_environment() -> None:
    assert parse([], {"NODE_NAME": "node-1"}) == AgentSettings(node_name="node-1")


def test_every_flag_sets_its_setting() -> None:
    flags = {
        "--node-name": "node-2",
        "--resource": "nvidia.com/gpu",
        "--shared-resource": "nvidia.com/gpu.shared",
        "--shared-slots": "4",
        "--sample-seconds": "0.5",
        "--window-seconds": "30",
        "--heartbeat-seconds": "15",
        "--report-seconds": "120",
        "--device-plugin-dir": "/plugins",
        "--pod-resources-socket": "/pr.sock",
        "--state-dir": "/state",
        "--listen": "[::]:8080",
        "--mig-strategy": "mixed",
        "--ignore-xids": "31, 43",
        "--fatal-xids": "119",
        "--on-xid-without-action": "Fault",
        "--device-list-strategy": "cdi-cri,envvar",
        "--driver-root": "/run/nvidia/driver",
        "--driver-library-root": "/host",
        "--container-mount": "/opt/driver:/usr/local/nvidia",
        "--cdi-root": "/etc/cdi",
        "--cdi-kind": "nvidia.com/gpu",
        "--hardware": "recorded",
        "--recording": "/day.jsonl",
        "--record": "/copy.jsonl",
        "--record-max-mib": "20",
        "--log-level": "debug",
        "--log-format": "console",
        "--pod-matching": "first-fit",
    }
    arguments = [part for flag in flags.items() for part in flag] + ["--pass-device-specs"]
    assert parse(arguments, {"NODE_NAME": "node-1"}) == AgentSettings(
        node_name="node-2",
        resource="nvidia.com/gpu",
        shared_resource="nvidia.com/gpu.shared",
        shared_slots=4,
        sample_seconds=0.5,
        window_seconds=30,
        heartbeat_seconds=15,
        report_seconds=120,
        device_plugin_dir=Path("/plugins"),
        pod_resources_socket=Path("/pr.sock"),
        state_dir=Path("/state"),
        listen_host="::",
        listen_port=8080,
        mig_strategy=MigStrategy.MIXED,
        xids=XidPolicy(ignored=frozenset({31, 43}), fatal=frozenset({119}), unknown=XidWithoutActionPolicy.FAULT),
        injection=InjectorSettings(
            strategies=frozenset({DeviceListStrategy.CDI_CRI, DeviceListStrategy.ENVVAR}),
            pass_device_specs=True,
            driver_root=Path("/run/nvidia/driver"),
            cdi_root=Path("/etc/cdi"),
            cdi_kind="nvidia.com/gpu",
            container_mounts=((Path("/opt/driver"), Path("/usr/local/nvidia")),),
        ),
        driver_library_root=Path("/host"),
        recording=Path("/day.jsonl"),
        record=Path("/copy.jsonl"),
        record_max_mib=20,
        log_level="debug",
        log_format="console",
        pod_matching=PodMatching.FIRST_FIT,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--node-name is required where NODE_NAME is not set"),
        (["--sample-seconds", "0"], "invalid value: '0': must be a number of seconds from 0.01 to 60"),
        (["--sample-seconds", "nan"], "invalid value: 'nan': must be a number of seconds from 0.01 to 60"),
        (["--sample-seconds", "61"], "invalid value: '61': must be a number of seconds from 0.01 to 60"),
        (["--window-seconds", "3601"], "invalid value: '3601': must be a number of seconds from 0.01 to 3600"),
        (["--heartbeat-seconds", "86400"], "invalid value: '86400': must be a number of seconds from 0.01 to 600"),
        (["--report-seconds", "3601"], "invalid value: '3601': must be a number of seconds from 0.01 to 3600"),
        (["--heartbeat-seconds", "soon"], "invalid value: 'soon': must be a number of seconds"),
        (
            ["--node-name", "n", "--sample-seconds", "31"],
            "--window-seconds must be at least twice --sample-seconds",
        ),
        (["--resource", "gpu"], "invalid value: 'gpu': must be an extended resource such as"),
        (["--resource", "A b/\u00fc!"], "invalid value: 'A b/\u00fc!': must be an extended resource such as"),
        (["--resource", "nvidia.com/gpu "], "invalid value: 'nvidia.com/gpu ': must be an extended resource such as"),
        (["--resource", "a..b/gpu"], "invalid value: 'a..b/gpu': must be an extended resource such as"),
        (["--resource", "a.b_c/gpu"], "invalid value: 'a.b_c/gpu': must be an extended resource such as"),
        (["--resource", f"a.dev/{'g' * 64}"], "must be an extended resource such as"),
        (["--resource", f"{'a' * 126}/gpu"], "must be an extended resource such as"),
        (
            ["--resource", "kubernetes.io/gpu"],
            "'kubernetes.io/gpu': is reserved for Kubernetes",
        ),
        (["--resource", "node.kubernetes.io/gpu"], "is reserved for Kubernetes"),
        (["--resource", "requests.dev/gpu"], "'requests.dev/gpu': is reserved for Kubernetes"),
        (["--shared-resource", "gpu"], "invalid value: 'gpu': must be an extended resource such as"),
        (
            ["--node-name=n", "--resource=a.dev/gpu", "--shared-resource=a.dev/mig-1g.10gb", "--mig-strategy=mixed"],
            "--shared-resource a.dev/mig-1g.10gb must not start with a.dev/mig-, the prefix of --mig-strategy mixed",
        ),
        (
            ["--node-name", "n", "--resource", "a.dev/mig-1g.10gb", "--mig-strategy", "mixed"],
            "--resource a.dev/mig-1g.10gb must not start with a.dev/mig-, the prefix of --mig-strategy mixed",
        ),
        (
            ["--node-name", "n", "--resource", "a.dev/gpu", "--shared-resource", "a.dev/gpu"],
            "--resource and --shared-resource must differ, both are a.dev/gpu",
        ),
        (["--shared-slots", "0"], "invalid value: '0': must be a whole number from 1 to 64"),
        (["--shared-slots", "x"], "invalid value: 'x': must be a whole number from 1 to 64"),
        (["--shared-slots", "65"], "invalid value: '65': must be a whole number from 1 to 64"),
        (["--record-max-mib", "0"], "invalid value: '0': must be a whole number from 1 to 1048576"),
        (
            ["--device-list-strategy", "cdi"],
            "'cdi': must be a comma-separated list of envvar, volume-mounts, cdi-cri, cdi-annotations",
        ),
        (
            ["--node-name=n", "--device-list-strategy=envvar,volume-mounts"],
            "must not list both envvar and volume-mounts",
        ),
        (["--container-mount", "/opt/driver"], "'/opt/driver': must be two absolute paths separated by a colon"),
        (["--device-list-strategy", ""], "'': must be a comma-separated list of envvar"),
        (["--mig-strategy", "all"], "invalid choice"),
        (["--on-xid-without-action", "fault"], "invalid choice"),
        (["--ignore-xids", "31;43"], "'31;43': must be a comma-separated list of numbers from 1 to 9999"),
        (["--fatal-xids", "0"], "'0': must be a comma-separated list of numbers from 1 to 9999"),
        (
            ["--node-name=n", "--ignore-xids=79,31", "--fatal-xids=31"],
            "--ignore-xids and --fatal-xids must not both list 31",
        ),
        (["--hardware", "rocm"], "invalid choice"),
        (["--node-name", "n", "--hardware", "recorded"], "--hardware recorded and --recording require each other"),
        (["--node-name", "n", "--recording", "f"], "--hardware recorded and --recording require each other"),
        (["--cdi-kind", "gpu"], "invalid value: 'gpu': must be a CDI kind such as"),
        (["--cdi-kind", "1x/y"], "invalid value: '1x/y': must be a CDI kind such as"),
        (["--cdi-kind", "x.y/a.b"], "invalid value: 'x.y/a.b': must be a CDI kind such as"),
        (
            ["--node-name=n", "--state-dir=state"],
            "invalid value: 'state': must be empty or an absolute path without '..'",
        ),
        (
            ["--node-name=n", "--state-dir=/var/lib/x/../kubelet/device-plugins/x"],
            "must be empty or an absolute path without '..'",
        ),
        (
            ["--node-name=n", "--state-dir=/var/lib/kubelet/device-plugins/faults"],
            "--state-dir /var/lib/kubelet/device-plugins/faults must not be in --device-plugin-dir",
        ),
        (["--listen", "9400"], "invalid value: '9400': must be HOST:PORT"),
        (["--listen", "0.0.0.0:70000"], "invalid value: '0.0.0.0:70000': must be HOST:PORT"),
        (["--log-format", "xml"], "invalid choice"),
    ],
)
def test_an_invalid_flag_exits_with_status_2_and_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(arguments, {})
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_an_empty_state_directory_disables_the_fault_file() -> None:
    assert parse([], {"NODE_NAME": "n"}).state_dir == Path("/var/lib/gpufleet")
    assert parse(["--state-dir", ""], {"NODE_NAME": "n"}).state_dir is None


def test_an_empty_shared_resource_disables_sharing() -> None:
    both = parse(["--shared-slots", "2"], {"NODE_NAME": "n"}).served
    assert both == (Served("gpufleet.dev/gpu"), Served("gpufleet.dev/gpu-shared", 2))
    assert parse(["--shared-resource", ""], {"NODE_NAME": "n"}).served == (Served("gpufleet.dev/gpu"),)


def test_the_diagnostic_flag_is_not_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    help_text = capsys.readouterr().out
    assert "--heartbeat-seconds" in help_text
    assert "pod-matching" not in help_text


@pytest.mark.parametrize(
    ("environment", "own_pod"),
    [
        ({}, None),
        ({"POD_NAME": "agent"}, None),
        ({"POD_NAMESPACE": "ml", "POD_NAME": ""}, None),
        ({"POD_NAMESPACE": "ml", "POD_NAME": "agent"}, ("ml", "agent")),
    ],
)
def test_the_environment_names_the_pod_of_the_agent(
    environment: dict[str, str], own_pod: tuple[str, str] | None
) -> None:
    assert parse(["--node-name", "n"], environment).own_pod == own_pod
