"""Runs a device plugin of another vendor on a node: it serves GPUs of the node under another resource."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpufleet_e2e.faults import other_plugin_server
from gpufleet_e2e.support.api import NODES, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import container
from gpufleet_e2e.support.polling import eventually

_DIRECTORY = str(other_plugin_server.DIRECTORY)
_READY_SECONDS = 30


@contextmanager
def other_plugin(fleet: Fleet, node: str, resource: str, uuids: Sequence[str]) -> Iterator[None]:
    """Offers these devices as `resource` while the block runs. The node's agent serves them as well.

    Args:
        fleet: The fleet.
        node: The node.
        resource: Extended resource of the other plugin.
        uuids: Devices that it offers.
    """
    source = Path(other_plugin_server.__file__).read_text(encoding="utf-8")
    image = fleet.agent_pod(node)["spec"]["containers"][0]["image"]
    mount = {"name": "plugins", "mountPath": _DIRECTORY}
    main = container(
        "plugin",
        command=("python3", "-c", source, resource, *uuids),
        image=image,
        volumeMounts=[mount],
        securityContext={"runAsUser": 0},
    )
    volume = {"name": "plugins", "hostPath": {"path": _DIRECTORY}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [main], "volumes": [volume]}
    path = f"{pods(NAMESPACE)}/other-plugin"
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other-plugin"}, "spec": spec}
    fleet.api.create(pods(NAMESPACE), body)
    try:
        eventually(lambda: _offered(fleet, node, resource, len(uuids)), within=_READY_SECONDS)
        yield
    finally:
        fleet.api.delete(path, grace=0)


def _offered(fleet: Fleet, node: str, resource: str, count: int) -> None:
    found = fleet.api.get(f"{NODES}/{node}")["status"]["allocatable"].get(resource, "0")
    assert found == str(count), f"{node} offers {found} {resource}"
