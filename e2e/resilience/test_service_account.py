"""The operator's ServiceAccount is deleted and created again, which makes its token invalid."""

import json

from gpufleet_e2e.support.api import NAMESPACES, JsonObject, pods
from gpufleet_e2e.support.fleet import READY_SECONDS, Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_operator.kube.rejected_requests import LIMIT_SECONDS

ACCOUNTS = f"{NAMESPACES}/{NAMESPACE}/serviceaccounts"
ENDED_SECONDS = 60 + LIMIT_SECONDS
"""Until then, the apiserver may accept the token again."""
FIX = "delete the operator's pod"


def test_log_ends_with_what_to_do_and_that_works(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the kubelet mounts the token of the deleted account as long as the pod exists."""
    namespace.apply(gpuworkload("early"))
    before = namespace.verify("early")["early"].replicas
    pod = fleet.operator_pod()
    name = pod["spec"]["serviceAccountName"]
    account = fleet.api.get(f"{ACCOUNTS}/{name}")
    kept = {key: account["metadata"].get(key) for key in ("name", "labels", "annotations")}

    fleet.api.delete(f"{ACCOUNTS}/{name}")
    fleet.api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": kept})
    ended = eventually(lambda: _ended(fleet), within=ENDED_SECONDS)
    assert ended["exitCode"] == 1
    lines = eventually(lambda: _log_of_the_ended(fleet, pod["metadata"]["name"]), within=ENDED_SECONDS)
    print(lines[-1])
    assert FIX in json.loads(lines[-1])["fix"]
    assert not any("Traceback" in line for line in lines), "\n".join(lines)

    namespace.apply(gpuworkload("late"))
    fleet.api.delete(f"{pods(NAMESPACE)}/{pod['metadata']['name']}", grace=0)

    after = namespace.verify("early", "late", within=READY_SECONDS)
    assert after["early"].replicas == before, "a running pod changed"


def _ended(fleet: Fleet) -> JsonObject:
    """Returns how the operator's last process ended."""
    (status,) = fleet.operator_pod()["status"]["containerStatuses"]
    found = status["lastState"].get("terminated") or status["state"].get("terminated")
    assert found, f"it has not ended yet: {status}"
    return dict(found)


def _log_of_the_ended(fleet: Fleet, pod: str) -> list[str]:
    """Returns the lines of the last process that has ended."""
    lines = fleet.api.text(f"{pods(NAMESPACE)}/{pod}/log?previous=true").splitlines()
    assert lines, "no log yet"
    return lines
