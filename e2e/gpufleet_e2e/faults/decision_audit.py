"""Watches what operators decide while they change: who leads, which pods are released, and which pods are deleted."""

from threading import Event, Thread
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_e2e.support.api import Api, JsonObject, pods
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.sandbox import TestNamespace

_EVERY_SECONDS = 0.1
_LEADER = "gpufleet_operator_leader"
_PORT = 8080


class DecisionAudit:
    """Reads a namespace and all operators again and again, in a thread, while its `with` block runs.

    The namespace's pods never end and nobody else deletes them.
    """

    def __init__(self, namespace: TestNamespace) -> None:
        self._namespace, self._fleet = namespace, namespace.fleet
        self._api = Api(self._fleet.cluster.kubeconfig)
        self._over = Event()
        self._thread = Thread(target=self._run, name="audit", daemon=True)
        self._problems: set[str] = set()
        self._failure: BaseException | None = None
        self.reads = 0
        self.leaders: set[str] = set()
        """Pods of operators that decided."""
        self.pods: dict[str, str] = {}
        """Name of each pod of the namespace, by uid."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._api.close()

    def check(self) -> None:
        """Asserts that at most one operator decided, each released pod had a reservation, and no pod was deleted."""
        assert self._failure is None, f"the audit ended: {self._failure!r}"
        assert not self._problems, "; ".join(sorted(self._problems))

    def _run(self) -> None:
        try:
            while not self._over.wait(_EVERY_SECONDS):
                self._look_at_pods()
                self._look_at_leaders()
                self.reads += 1
        except Exception as error:  # noqa: BLE001 - raised by check(), in the thread of the test
            self._failure = error

    def _look_at_pods(self) -> None:
        """A released pod keeps its reservation until it ends, so the reservations are read after the pods."""
        found = {pod["metadata"]["uid"]: pod for pod in self._api.list(pods(self._namespace.name))}
        reserved = self._fleet.assignments(self._namespace.name)
        for uid, pod in found.items():
            name = self.pods[uid] = pod["metadata"]["name"]
            if "deletionTimestamp" in pod["metadata"]:
                self._problems.add(f"{name} is being deleted")
            if not _gated(pod) and uid not in reserved:
                self._problems.add(f"{name} was released without a reservation")
        self._problems |= {f"{name} is gone" for uid, name in self.pods.items() if uid not in found}

    def _look_at_leaders(self) -> None:
        """One that decided before and after another one was seen to decide did so at the same time."""
        names = [pod["metadata"]["name"] for pod in self._fleet.operator_pods()]
        first = [name for name in names if self._decides(name)]
        second = [name for name in reversed(names) if self._decides(name)]
        self.leaders.update(second)
        both = sorted(set(first) & set(second))
        if len(both) > 1:
            self._problems.add(f"{' and '.join(both)} decide at the same time")

    def _decides(self, name: str) -> bool:
        response = self._api.call("GET", f"{pods(NAMESPACE)}/{name}:{_PORT}/proxy/metrics")
        if not response.allowed:
            return False  # it starts, or has ended
        families = text_string_to_metric_families(response.text)
        return any(one.value == 1 for family in families if family.name == _LEADER for one in family.samples)


def _gated(pod: JsonObject) -> bool:
    return any(gate["name"] == SCHEDULING_GATE for gate in pod["spec"].get("schedulingGates", []))
