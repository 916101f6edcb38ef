from gpufleet_agent.dra.environment import claim_env
from gpufleet_agent.dra.prepared_claim import PreparedDevice
from gpufleet_agent.kube.model import Assignment
from gpufleet_testing.agent.objects import assignment

ORDER = {"GPU-0": 0, "GPU-1": 1}
POD = frozenset({"uid-train-1"})


def env(
    *devices: PreparedDevice, assignments: tuple[Assignment, ...] = (), visible: str | None = None
) -> dict[str, dict[str, str]]:
    return claim_env(devices, POD, assignments, ORDER, visible=visible)


def test_container_of_a_reserved_pod_gets_what_the_device_plugin_sets() -> None:
    reserved = assignment(
        "train-1", "GPU-1", "GPU-0", replica=1, replicas=4, memory_mib=500, shard_start=10, shard_end=20
    )
    # One request for each device, of the same container.
    found = env(PreparedDevice("a", "GPU-1"), PreparedDevice("b", "GPU-0"), assignments=(reserved,))
    assert found["a"] == found["b"]
    assert found["a"] == {
        "NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1",
        "GPUFLEET_REPLICA": "1",
        "GPUFLEET_REPLICAS": "4",
        "GPUFLEET_DEVICES": "GPU-0,GPU-1",
        "GPUFLEET_MEMORY_MIB": "500",
        "GPUFLEET_SHARD_START": "10",
        "GPUFLEET_SHARD_END": "20",
    }


def test_container_without_a_reservation_gets_the_devices_of_its_request() -> None:
    found = env(PreparedDevice("a", "GPU-1"), PreparedDevice("b", "GPU-0"), assignments=(assignment("other", "GPU-5"),))
    assert found == {
        "a": {"NVIDIA_VISIBLE_DEVICES": "GPU-1", "GPUFLEET_DEVICES": "GPU-1"},
        "b": {"NVIDIA_VISIBLE_DEVICES": "GPU-0", "GPUFLEET_DEVICES": "GPU-0"},
    }


def test_share_has_its_memory() -> None:
    assert env(PreparedDevice("a", "GPU-1", memory_mib=700))["a"]["GPUFLEET_MEMORY_MIB"] == "700"
    assert "GPUFLEET_MEMORY_MIB" not in env(PreparedDevice("a", "GPU-1"))["a"]


def test_devices_by_cdi_hide_those_of_nvidias_runtime() -> None:
    assert env(PreparedDevice("a", "GPU-1"), visible="void")["a"]["NVIDIA_VISIBLE_DEVICES"] == "void"
