"""Records when watches show each step from the creation of a pod to its running container."""

from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Self

from kubernetes import client, watch
from urllib3.exceptions import HTTPError

from gpufleet_e2e.proof.contract import GROUP, TELEMETRY, VERSION, WORKLOAD_LABEL, WORKLOADS

STEPS = ("created", "reserved", "claimed", "released", "allocated", "bound", "running")
"""In their order; a pod without a reservation or a claim has no such steps."""

CLAIMS = ("resource.k8s.io", "v1")
_WATCH_SECONDS = 600


class Timeline:
    """Watches pods, claims and reservations of a namespace while its `with` block runs.

    Args:
        admin: A client with the administrator's credentials.
        namespace: The namespace.
    """

    def __init__(self, admin: client.ApiClient, namespace: str) -> None:
        custom, core = client.CustomObjectsApi(admin), client.CoreV1Api(admin)
        self._namespace = namespace
        self._lock = Lock()
        self._at: dict[str, dict[str, float]] = {}
        self.versions: Counter[str] = Counter()
        """How often each workload was written."""
        self._stopped = False
        self._watches = [watch.Watch() for _ in range(4)]  # type: ignore[no-untyped-call]  # published without types
        lists: tuple[tuple[Callable[..., Any], tuple[str, ...], Callable[[Mapping[str, Any]], None]], ...] = (
            (core.list_namespaced_pod, (namespace,), self.see_pod),
            # A watch of the typed list fails: its client has no model of the name that the list has in its docstring.
            (custom.list_namespaced_custom_object, (*CLAIMS, namespace, "resourceclaims"), self.see_claim),
            (custom.list_cluster_custom_object, (GROUP, VERSION, TELEMETRY), self.see_telemetry),
            (custom.list_namespaced_custom_object, (GROUP, VERSION, namespace, WORKLOADS), self.see_workload),
        )
        self._threads = [
            Thread(target=self._follow, args=(stream, *each), daemon=True)
            for stream, each in zip(self._watches, lists, strict=True)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stopped = True
        for stream in self._watches:
            stream.stop()  # type: ignore[no-untyped-call]  # published without types

    def steps(self, name: str) -> dict[str, float]:
        """Returns the moments of the steps, by the clock of `time.monotonic`.

        Args:
            name: Of a workload with one replica, or of a pod without a workload.
        """
        with self._lock:
            found = dict(self._at.get(name, {}))
        return {step: found[step] for step in STEPS if step in found}

    def _follow(
        self, stream: Any, listing: Callable[..., Any], where: tuple[str, ...], see: Callable[[Any], None]
    ) -> None:
        while not self._stopped:
            try:
                for event in stream.stream(listing, *where, timeout_seconds=_WATCH_SECONDS):
                    see(event["raw_object"])
            except HTTPError:  # the cluster may end before the watch notices that it is stopped
                if not self._stopped:
                    raise

    def _record(self, name: str, **steps: object) -> None:
        now = monotonic()
        with self._lock:
            known = self._at.setdefault(name, {})
            for step, reached in steps.items():
                if reached:
                    known.setdefault(step, now)

    def see_pod(self, pod: Mapping[str, Any]) -> None:
        """Records what a pod shows."""
        states = pod.get("status", {}).get("containerStatuses", [])
        running = any("running" in one.get("state", {}) for one in states)
        self._record(
            _name(pod),
            created=True,
            released=not pod["spec"].get("schedulingGates"),
            bound=pod["spec"].get("nodeName"),
            running=running,
        )

    def see_claim(self, claim: Mapping[str, Any]) -> None:
        """Records what a ResourceClaim shows."""
        self._record(_name(claim), claimed=True, allocated=claim.get("status", {}).get("allocation"))

    def see_telemetry(self, telemetry: Mapping[str, Any]) -> None:
        """Records the reservations of a node."""
        for one in telemetry.get("spec", {}).get("assignments", []):
            if one["namespace"] == self._namespace:
                self._record(one["workload"], reserved=True)

    def see_workload(self, workload: Mapping[str, Any]) -> None:
        """Counts a version of a workload."""
        with self._lock:
            self.versions[workload["metadata"]["name"]] += 1


def _name(found: Mapping[str, Any]) -> str:
    meta = found["metadata"]
    return str(meta.get("labels", {}).get(WORKLOAD_LABEL, meta["name"]))
