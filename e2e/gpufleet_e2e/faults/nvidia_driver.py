"""Runs a DRA driver on a node that poses as NVIDIA's, with a ResourceSlice as in its public source."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpufleet_e2e.faults import nvidia_driver_server
from gpufleet_e2e.faults.nvidia_driver_server import CDI, DRIVER, PLUGINS, REGISTRY
from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.claims import CLASSES, SLICES
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import container
from gpufleet_e2e.support.polling import eventually

_NAME = "posing-driver"
_READY_SECONDS = 30
_RBAC = "rbac.authorization.k8s.io"


@contextmanager
def nvidia_driver(fleet: Fleet, node: str) -> Iterator[None]:
    """Offers the devices of a node as `gpu-0`, `gpu-1` and so on while the block runs."""
    names = {f"gpu-{index}": uuid for index, uuid in enumerate(fleet.gpus[node].uuids)}
    path = f"{pods(NAMESPACE)}/{_NAME}"
    made = [(CLASSES, _class()), (SLICES, _slice(node, names)), *_account()]
    for collection, body in made:
        fleet.api.create(collection, body)
    fleet.api.create(pods(NAMESPACE), _pod(fleet, node, names))
    try:
        eventually(lambda: _is_registered(fleet, path), within=_READY_SECONDS)
        yield
    finally:
        fleet.api.delete(path, grace=0)
        for collection, body in reversed(made):
            fleet.api.delete(f"{collection}/{body['metadata']['name']}")


def _is_registered(fleet: Fleet, path: str) -> None:
    log = fleet.api.text(f"{path}/log")
    assert "registered: True" in log, log


def _class() -> JsonObject:
    expression = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
    head = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": DRIVER}}
    return {**head, "spec": {"selectors": [{"cel": {"expression": expression}}]}}


def _account() -> list[tuple[str, JsonObject]]:
    """Returns the ServiceAccount of the driver: the agent may not read claims that it does not serve."""
    rule = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]}
    role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _NAME}
    subject = {"kind": "ServiceAccount", "name": _NAME, "namespace": NAMESPACE}
    head = {"apiVersion": f"{_RBAC}/v1", "metadata": {"name": _NAME}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _NAME}}
    return [
        (f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account),
        (f"/apis/{_RBAC}/v1/clusterroles", {**head, "kind": "ClusterRole", "rules": [rule]}),
        (
            f"/apis/{_RBAC}/v1/clusterrolebindings",
            {**head, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]},
        ),
    ]


def _slice(node: str, names: dict[str, str]) -> JsonObject:
    devices = [
        {
            "name": name,
            "attributes": {
                "type": {"string": "gpu"},
                "uuid": {"string": uuid},
                "productName": {"string": "NVIDIA H100 80GB HBM3"},
                "brand": {"string": "Nvidia"},
                "architecture": {"string": "Hopper"},
            },
            "capacity": {"memory": {"value": "81559Mi"}},
        }
        for name, uuid in names.items()
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": _NAME}, "spec": spec}


def _pod(fleet: Fleet, node: str, names: dict[str, str]) -> JsonObject:
    source = Path(nvidia_driver_server.__file__).read_text(encoding="utf-8")
    folders = {"plugins": str(PLUGINS), "registry": str(REGISTRY), "cdi": str(CDI)}
    main = container(
        "driver",
        command=("python3", "-c", source, json.dumps(names)),
        image=fleet.agent_pod(node)["spec"]["containers"][0]["image"],
        volumeMounts=[{"name": name, "mountPath": path} for name, path in folders.items()],
        securityContext={"runAsUser": 0},
    )
    spec = {
        "nodeName": node,
        "serviceAccountName": _NAME,
        "terminationGracePeriodSeconds": 1,
        "containers": [main],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}} for name, path in folders.items()
        ],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _NAME}, "spec": spec}
