"""A queue of Kueue for one namespace, with a quota of GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from gpufleet_e2e.proof import contract
from gpufleet_e2e.support.api import Api, JsonObject
from gpufleet_e2e.support.polling import eventually

QUEUE = "team"
QUOTA = 8
CHECK = "devices"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_GATE = "kueue.x-k8s.io/admission"

_VERSION = "kueue.x-k8s.io/v1beta2"
_API = f"/apis/{_VERSION}"
_READY_SECONDS = 30


@dataclass(frozen=True)
class Queue:
    """A ClusterQueue, and a LocalQueue of it in a namespace."""

    api: Api
    namespace: str

    @property
    def used(self) -> int:
        """The GPUs for which quota is reserved."""
        found = self.api.get(f"{_API}/clusterqueues/{QUEUE}")["status"].get("flavorsReservation", [])
        return sum(int(resource["total"]) for flavor in found for resource in flavor["resources"])

    def workloads(self, name: str) -> list[JsonObject]:
        """Reads the Workloads of Kueue that consist of pods of a GPUWorkload."""
        found = self.api.list(f"{_API}/namespaces/{self.namespace}/workloads")
        return [
            one
            for one in found
            if any(owner["name"].startswith(f"{name}-") for owner in one["metadata"].get("ownerReferences", []))
        ]

    def check_active(self) -> None:
        """Asserts that the AdmissionCheck and the ClusterQueue are active."""
        _active(self.api, f"{_API}/admissionchecks/{CHECK}")
        _active(self.api, f"{_API}/clusterqueues/{QUEUE}")

    def deactivate_check(self) -> None:
        """Removes the condition of the AdmissionCheck, which its controller sets."""
        self.api.patch(f"{_API}/admissionchecks/{CHECK}/status", {"status": {"conditions": []}})

    def check_paused(self, name: str) -> None:
        """Asserts that the only Workload of a GPUWorkload waits for its next attempt, and that no quota is reserved."""
        found = self.workloads(name)
        assert len(found) == 1, f"{len(found)} Workloads"
        status = found[0].get("status", {})
        states = [(check["state"], check.get("retryCount", 0) > 0) for check in status.get("admissionChecks", [])]
        assert states == [("Pending", True)], status
        assert status.get("requeueState", {}).get("requeueAt"), status
        conditions = {one["type"]: one["status"] for one in status["conditions"]}
        assert (conditions["QuotaReserved"], conditions["Evicted"]) == ("False", "True"), conditions
        assert not self.used, f"{self.used} in use"


@contextmanager
def queue(api: Api, namespace: str, *, checked: bool) -> Iterator[Queue]:
    """Creates the queue while the block runs. Its Workloads must be gone at the end.

    Args:
        api: The apiserver.
        namespace: Of the LocalQueue.
        checked: Whether the queue has the AdmissionCheck of gpufleet.
    """
    flavor = {"name": "default", "resources": [{"name": contract.RESOURCE, "nominalQuota": QUOTA}]}
    spec: JsonObject = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": [contract.RESOURCE], "flavors": [flavor]}],
    }
    if checked:
        spec["admissionChecksStrategy"] = {"admissionChecks": [{"name": CHECK}]}
    objects: tuple[tuple[str, str, str, JsonObject], ...] = (
        ("resourceflavors", "ResourceFlavor", "default", {}),
        ("admissionchecks", "AdmissionCheck", CHECK, {"controllerName": "gpufleet.dev/devices"}),
        ("clusterqueues", "ClusterQueue", QUEUE, spec),
        (f"namespaces/{namespace}/localqueues", "LocalQueue", QUEUE, {"clusterQueue": QUEUE}),
    )
    for plural, kind, name, wanted in objects:
        body = {"apiVersion": _VERSION, "kind": kind, "metadata": {"name": name}, "spec": wanted}
        # Its webhooks answer a moment after its pod is Ready.
        eventually(partial(api.create, f"{_API}/{plural}", body), within=_READY_SECONDS)
    eventually(partial(_active, api, f"{_API}/clusterqueues/{QUEUE}"), within=_READY_SECONDS)
    yield Queue(api, namespace)
    for plural, _, name, _ in reversed(objects):
        api.delete(f"{_API}/{plural}/{name}")
        # A check or flavor stays as long as a queue uses it.
        eventually(partial(api.check_gone, f"{_API}/{plural}/{name}"), within=_READY_SECONDS)


def _active(api: Api, path: str) -> None:
    conditions = api.get(path).get("status", {}).get("conditions", [])
    assert any(one["type"] == "Active" and one["status"] == "True" for one in conditions), conditions
