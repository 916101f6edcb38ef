"""What a platform and a pool change in the agents' pods."""

from collections.abc import Mapping
from typing import Any

import pytest

from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.chart import Chart, kinds
from gpufleet_testbed import ClusterError, repository_root

PLATFORMS = ("nvidia-runtime", "cdi", "driver-container", "gke", "bottlerocket", "openshift")


def agent(chart: Chart, values: Mapping[str, object]) -> Any:
    return chart.agent(values)["spec"]["containers"][0]


def args(container: JsonObject) -> dict[str, str]:
    pairs = (word.removeprefix("--").partition("=") for word in container["args"])
    return {name: value for name, _, value in pairs}


def mounts(container: JsonObject) -> dict[str, str]:
    return {one["name"]: one["mountPath"] for one in container["volumeMounts"]}


def paths(pod: JsonObject) -> dict[str, str]:
    return {one["name"]: one["hostPath"]["path"] for one in pod["spec"]["volumes"]}


def visible(container: JsonObject) -> str | None:
    found = {one["name"]: one.get("value") for one in container["env"]}
    return found.get("NVIDIA_VISIBLE_DEVICES")


EXPECTED = {
    # platform: NVIDIA_VISIBLE_DEVICES of the agent, strategy, kind of CDI devices, driver's root, privileged
    "nvidia-runtime": ("all", "envvar", "gpufleet.dev/gpu", "/", False),
    "cdi": (None, "cdi-cri", "nvidia.com/gpu", "/", True),
    "driver-container": (None, "envvar", "nvidia.com/gpu", "/run/nvidia/driver", True),
    "gke": (None, "envvar", "gpufleet.dev/gpu", "/", True),
    "bottlerocket": ("/var/run/nvidia-container-devices", "volume-mounts", "gpufleet.dev/gpu", "/", False),
    "openshift": (None, "envvar", "nvidia.com/gpu", "/run/nvidia/driver", True),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_platform_sets_driver_strategy_and_privileges(chart: Chart, platform: str) -> None:
    container = agent(chart, {"platform": platform})
    flags = args(container)
    assert EXPECTED[platform] == (
        visible(container),
        flags["device-list-strategy"],
        flags["cdi-kind"],
        flags["driver-root"],
        container["securityContext"].get("privileged", False),
    )
    if not container["securityContext"].get("privileged"):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_table_of_platforms_has_every_platform() -> None:
    readme = (repository_root() / "charts" / "gpufleet" / "README.md").read_text(encoding="utf-8")
    assert f"| | {' | '.join(f'`{name}`' for name in PLATFORMS)} |" in readme


def test_driver_of_the_host_is_mounted(chart: Chart) -> None:
    cdi = {"platform": "cdi"}
    assert args(agent(chart, cdi))["driver-library-root"] == "/opt/gpufleet/host"
    assert mounts(agent(chart, cdi))["host-usr"] == "/opt/gpufleet/host/usr"
    assert paths(chart.agent(cdi)).items() >= {"host-usr": "/usr", "devices": "/dev", "cdi": "/var/run/cdi"}.items()
    container = {"platform": "driver-container"}
    assert args(agent(chart, container))["driver-library-root"] == "/run/nvidia/driver"
    expected = {"driver-root": "/run/nvidia/driver", "devices": "/run/nvidia/driver/dev"}
    assert paths(chart.agent(container)).items() >= expected.items()
    gke = agent(chart, {"platform": "gke"})
    assert {"name": "LD_LIBRARY_PATH", "value": "/opt/gpufleet/driver"} in gke["env"]
    assert args(gke)["container-mount"] == "/home/kubernetes/bin/nvidia:/usr/local/nvidia"
    assert "pass-device-specs" in args(gke)
    assert paths(chart.agent({"platform": "gke"}))["driver"] == "/home/kubernetes/bin/nvidia/lib64"


def test_driver_of_a_directory_has_no_device_nodes_on_request(chart: Chart) -> None:
    values = {"agent.driver": {"hostPath": "/opt/driver", "devices": False}}
    container = agent(chart, values)
    assert visible(container) is None
    assert {"name": "driver", "mountPath": "/opt/gpufleet/driver", "readOnly": True} in container["volumeMounts"]
    assert {"name": "driver", "hostPath": {"path": "/opt/driver", "type": "Directory"}} in chart.agent(values)["spec"][
        "volumes"
    ]
    assert "privileged" not in container["securityContext"]
    assert "devices" not in mounts(container)
    assert agent(chart, {"agent.driver.hostPath": "/opt/driver"})["securityContext"]["privileged"] is True


def test_objects_of_a_platform_are_rendered_for_it_only(chart: Chart) -> None:
    assert not {"ResourceQuota", "SecurityContextConstraints"} & kinds(chart.render())
    quota = chart.render({"platform": "gke"})["ResourceQuota", "gpufleet-agent"]["spec"]
    assert quota["scopeSelector"]["matchExpressions"][0]["values"] == ["system-node-critical"]
    assert "ResourceQuota" not in kinds(chart.render({"platform": "gke", "agent.priorityClassName": ""}))
    openshift = chart.render({"platform": "openshift"})
    constraints = openshift["SecurityContextConstraints", "gpufleet-agent"]
    assert constraints["users"] == ["system:serviceaccount:gpufleet-system:gpufleet-agent"]
    assert constraints["allowHostPID"] is True
    assert "runAsUser" not in chart.operator({"platform": "openshift"})["spec"]["securityContext"]
    assert chart.operator()["spec"]["securityContext"]["runAsUser"] == 65532
    assert "SecurityContextConstraints" in kinds(chart.render({"openshift.scc.create": True}))


def test_values_take_precedence_over_the_platform(chart: Chart) -> None:
    values = {
        "platform": "gke",
        "agent.deviceListStrategies": ["cdi-cri", "envvar"],
        "agent.cdi.kind": "nvidia.com/gpu",
        "agent.driverRoot": "/run/other",
        "agent.containerMounts": [{"hostPath": "/a", "containerPath": "/b"}],
        "agent.runtimeClassName": "nvidia",
        "agent.driver": {"access": "VolumeMounts"},
    }
    with pytest.raises(ClusterError, match=r"must be empty with agent\.driver\.access VolumeMounts"):
        chart.text(values)
    container = agent(chart, {**values, "agent.driver": {"access": "Host", "hostPath": "/c"}})
    flags = args(container)
    assert flags["device-list-strategy"] == "cdi-cri,envvar"
    assert (flags["cdi-kind"], flags["driver-root"], flags["container-mount"]) == (
        "nvidia.com/gpu",
        "/run/other",
        "/a:/b",
    )
    assert chart.agent({"agent.runtimeClassName": "nvidia"})["spec"]["runtimeClassName"] == "nvidia"


def test_driver_root_that_is_the_mounted_driver_is_mounted_once(chart: Chart) -> None:
    path = "/opt/gpufleet/driver"
    names = list(mounts(agent(chart, {"agent.driver": {"hostPath": path, "devices": False}, "agent.driverRoot": path})))
    assert "driver" in names
    assert "driver-root" not in names


def test_mig_needs_a_capability_and_whole_gpus_do_not(chart: Chart) -> None:
    container = agent(chart, {"agent.migStrategy": "single"})
    assert args(container)["mig-strategy"] == "single"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert {"name": "NVIDIA_MIG_MONITOR_DEVICES", "value": "all"} in container["env"]


def test_faults_and_processes_of_the_host_are_optional(chart: Chart) -> None:
    state = {"path": "/var/lib/gpufleet", "type": "DirectoryOrCreate"}
    assert {"name": "state", "hostPath": state} in chart.agent()["spec"]["volumes"]
    assert args(agent(chart, {}))["state-dir"] == mounts(agent(chart, {}))["state"] == "/var/lib/gpufleet"
    values = {"agent.stateDir": "", "agent.hostPID": False}
    assert "state" not in {**mounts(agent(chart, values)), **paths(chart.agent(values))}
    assert (chart.agent()["spec"]["hostPID"], chart.agent(values)["spec"]["hostPID"]) == (True, False)


def test_pools_are_daemonsets_with_values_of_their_own(chart: Chart) -> None:
    pools = [
        {"name": "mig", "nodeSelector": {"pool": "mig"}, "migStrategy": "mixed", "driver": {"access": "Runtime"}},
        {"name": "gke", "nodeSelector": {"pool": "gke"}, "platform": "gke", "tolerations": []},
        {"name": "dra", "nodeSelector": {"pool": "dra"}, "transport": "PerNode"},
    ]
    objects = chart.render({"agent.pools": pools, "agent.sampleSeconds": 2})
    sets = {name: one["spec"] for (kind, name), one in objects.items() if kind == "DaemonSet"}
    assert sets.keys() == {f"gpufleet-agent-{suffix}" for suffix in ("mig", "gke", "dra", "dra-dra")}
    selectors = [str(one["selector"]["matchLabels"]) for one in sets.values()]
    assert len(set(selectors)) == len(sets), "no DaemonSet selects the pods of another one"
    for name, one in sets.items():
        pod = one["template"]
        assert one["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        pool = name.split("-")[2]
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": pool}
        assert args(pod["spec"]["containers"][0])["sample-seconds"] == "2"
    flags = {name: args(one["template"]["spec"]["containers"][0]) for name, one in sets.items()}
    assert flags["gpufleet-agent-mig"]["mig-strategy"] == "mixed"
    assert flags["gpufleet-agent-gke"]["mig-strategy"] == "none"
    assert flags["gpufleet-agent-dra-dra"]["transport"] == "DRA"
    operator = objects["Deployment", "gpufleet-operator"]["spec"]["template"]["spec"]["containers"][0]
    assert args(operator)["transport"] == "PerNode", "pools differ"
    assert {"ResourceQuota", "DeviceClass"} <= kinds(objects)
    assert ("ValidatingAdmissionPolicy", "gpufleet-own-slice") in objects
