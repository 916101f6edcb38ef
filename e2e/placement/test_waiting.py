"""A gated pod says why it waits: to people by an event, to tools by an annotation, until it is released."""

from datetime import datetime

from gpufleet_e2e.support.api import JsonObject, events
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

WAITING_FOR = "gpufleet.dev/waiting-for"
SOON_SECONDS = 10
SAID_SECONDS = 5


def test_gated_pod_has_event_until_released(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the event precedes the annotation, and one patch removes annotation and gate."""
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("holds", count=len(fleet.gpus[node].uuids), node=node))
    namespace.verify("holds")
    namespace.apply(gpuworkload("waits", node=node))
    pod = eventually(lambda: _annotated(namespace, "waits", "Devices"), within=SOON_SECONDS)
    name, created = pod["metadata"]["name"], datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    described = fleet.cluster.kubectl("describe", "pod", name, f"--namespace={namespace.name}").stdout
    print(described[described.index("Events:") :])
    assert "WaitingForDevices" in described
    assert "8 in use" in described
    found = fleet.api.list(events(namespace.name), fieldSelector=f"involvedObject.uid={pod['metadata']['uid']}")
    (event,) = [one for one in found if one["reason"] == "WaitingForDevices"]
    assert (datetime.fromisoformat(event["firstTimestamp"]) - created).total_seconds() <= SAID_SECONDS
    namespace.delete("holds")
    namespace.verify("waits")
    assert WAITING_FOR not in namespace.pod("waits")["metadata"]["annotations"]


def _annotated(namespace: TestNamespace, name: str, value: str) -> JsonObject:
    pod = namespace.pod(name)
    assert pod["metadata"].get("annotations", {}).get(WAITING_FOR) == value, pod["metadata"]
    return pod
