"""The client speaks the kubelet's protocol: a server that knows only bytes answers it over a real unix socket."""

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from gpufleet_e2e.proof.errors import EvidenceError
from gpufleet_e2e.proof.generate import generate
from gpufleet_e2e.proof.podresources import list_pod_resources


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, encoded by hand."""
    low, high = len(content) % 128, len(content) // 128
    return bytes([number << 3 | 2, *([low | 128, high] if high else [low])]) + content


def one_device(resource: bytes, uuid: bytes) -> bytes:
    return field(2, field(1, resource) + field(2, uuid))


# As k8s.io/kubelet/pkg/apis/podresources/v1/api.proto numbers them; 3 in a device is its topology, unknown to us.
CONTAINER = field(1, b"main") + one_device(b"gpufleet.dev/gpu", b"GPU-b") + one_device(b"gpufleet.dev/gpu", b"GPU-a")
OTHER = field(1, b"side") + field(2, field(1, b"example.com/nic") + field(2, b"nic-0") + field(3, b""))
POD = field(1, b"train-0-a") + field(2, b"demo") + field(3, CONTAINER) + field(3, OTHER)
IDLE = field(1, b"idle") + field(2, b"demo") + field(3, field(1, b"main"))


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Starts servers, each in a folder of its own, that answer List with the given bytes."""
    servers = []

    def start(answer: bytes) -> Path:
        server = grpc.server(ThreadPoolExecutor(1))
        servers.append(server)
        folder = tmp_path / f"node-{len(servers)}"
        folder.mkdir()
        method: grpc.RpcMethodHandler[bytes, bytes]
        method = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
        service = grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method})
        server.add_generic_rpc_handlers((service,))
        server.add_insecure_port(f"unix:{folder}/kubelet.sock")
        server.start()
        return folder / "kubelet.sock"

    yield start
    for server in servers:
        server.stop(0).wait()


def test_claimed_devices_are_gathered_by_driver(kubelet: Callable[[bytes], Path]) -> None:
    """CDI devices, field 1, are not read: of several devices of a claim they are wrong."""
    names = field(2, b"gpu.gpufleet.dev") + field(3, b"node-1") + field(4, b"gpu-a") + field(5, b"s1")
    claimed = field(4, field(1, field(1, b"gpufleet.dev/claim=wrong")) + names)
    container = field(1, b"main") + field(5, field(2, b"train-0-a") + field(3, b"demo") + claimed)
    pod = field(1, b"train-0-a") + field(2, b"demo") + field(3, container)
    (found,) = list_pod_resources("node-1", kubelet(field(1, pod)))
    assert (found.resource, found.devices) == ("gpu.gpufleet.dev", ("node-1\ngpu-a\ns1",))


def test_device_that_the_kubelet_lists_twice_after_a_reboot_counts_once(kubelet: Callable[[bytes], Path]) -> None:
    """But not another share of the same device."""

    def share(name: bytes) -> bytes:
        return field(4, field(2, b"gpu.gpufleet.dev") + field(3, b"node-1") + field(4, b"gpu-a") + field(5, name))

    claim = field(2, b"train-0-a") + field(3, b"demo") + share(b"s1") + share(b"s2") + share(b"s1") + share(b"s2")
    pod = field(1, b"train-0-a") + field(2, b"demo") + field(3, field(1, b"main") + field(5, claim))
    (found,) = list_pod_resources("node-1", kubelet(field(1, pod)))
    assert found.devices == ("node-1\ngpu-a\ns1", "node-1\ngpu-a\ns2")


def test_devices_are_gathered_by_container_and_resource(kubelet: Callable[[bytes], Path]) -> None:
    found = list_pod_resources("node-1", kubelet(field(1, POD) + field(1, IDLE)))
    assert [(one.namespace, one.pod, one.container, one.resource, one.devices) for one in found] == [
        ("demo", "train-0-a", "main", "gpufleet.dev/gpu", ("GPU-a", "GPU-b")),
        ("demo", "train-0-a", "side", "example.com/nic", ("nic-0",)),
    ]
    assert {one.node for one in found} == {"node-1"}


def test_unreachable_kubelet_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"the kubelet of node-1 did not respond on .*/none.sock"):
        list_pod_resources("node-1", tmp_path / "none.sock", timeout_seconds=2)
    with pytest.raises(EvidenceError, match=r"socket of the kubelet of node-1 not found: .*absent"):
        list_pod_resources("node-1", tmp_path / "absent" / "kubelet.sock")


def test_kubelets_called_in_sequence_return_their_own_devices(kubelet: Callable[[bytes], Path]) -> None:
    busy, idle = kubelet(field(1, POD)), kubelet(field(1, IDLE))
    for _ in range(3):
        assert len(list_pod_resources("node-1", busy)) == 2
        assert list_pod_resources("node-2", idle) == ()


def test_socket_with_a_long_path_is_reached(kubelet: Callable[[bytes], Path], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    kubelet(field(1, POD)).rename(deep / "kubelet.sock")
    assert len(list_pod_resources("node-1", deep / "kubelet.sock")) == 2


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    generate(tmp_path)
    committed = Path(inspect.getfile(list_pod_resources)).parent
    for name in ("podresources_pb2.py", "podresources_pb2.pyi"):
        assert (tmp_path / "gpufleet_e2e" / "proof" / name).read_text() == (committed / name).read_text(), (
            "run python -m gpufleet_e2e.proof.generate"
        )
