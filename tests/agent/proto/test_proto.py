from pathlib import Path

import pytest

from gpufleet_agent.proto import deviceplugin_pb2, podresources_pb2
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.generate import ROOT, generate


def test_committed_modules_are_what_the_proto_files_generate(tmp_path: Path) -> None:
    for relative in generate(tmp_path):
        assert (tmp_path / relative).read_text() == (ROOT / relative).read_text(), "run: make proto"


def test_device_plugin_messages_have_the_kubelets_field_numbers() -> None:
    # Bytes written down from the kubelet's api.proto: tag (field << 3 | wire type), length, payload.
    request = deviceplugin_pb2.ContainerPreferredAllocationRequest.FromString(b"\x0a\x01a\x0a\x01b\x12\x01a\x18\x02")
    assert list(request.available_deviceIDs) == ["a", "b"]
    assert list(request.must_include_deviceIDs) == ["a"]
    assert request.allocation_size == 2
    answer = deviceplugin_pb2.ContainerAllocateResponse(envs={"K": "V"}, cdi_devices=[{"name": "c"}])
    assert answer.SerializeToString() == b"\x0a\x06\x0a\x01K\x12\x01V\x2a\x03\x0a\x01c"
    register = deviceplugin_pb2.RegisterRequest(
        version="v", endpoint="e", resource_name="r", options={"get_preferred_allocation_available": True}
    )
    assert register.SerializeToString() == b"\x0a\x01v\x12\x01e\x1a\x01r\x22\x02\x10\x01"


def test_pod_resources_messages_skip_what_they_do_not_know() -> None:
    # name, namespace, then an unknown field 15 as a newer kubelet may send.
    pod = podresources_pb2.PodResources.FromString(b"\x0a\x01p\x12\x01n\x7a\x01?")
    assert (pod.name, pod.namespace, len(pod.containers)) == ("p", "n", 0)


def test_a_socket_path_longer_than_linux_allows_is_rejected_with_its_path() -> None:
    with pytest.raises(ValueError, match=r"socket path /x{110} must have at most 107 bytes"):
        UnixChannel(Path("/" + "x" * 110))
