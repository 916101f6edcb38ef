"""GPUWorkloads: counts, conditions, and the placement of each replica, as their status has them."""

from dataclasses import dataclass

from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, number, text

_EXPECTED = {"Ready": "True", "Allocated": "True", "Placed": "True"}
"""Status of a condition that needs no attention; False for all others."""


@dataclass(frozen=True, slots=True)
class ConditionView:
    type: str
    status: str
    reason: str
    message: str

    @property
    def expected(self) -> bool:
        """True when the condition reports nothing unusual."""
        return self.status == _EXPECTED.get(self.type, "False")

    def __str__(self) -> str:
        return f"{self.type} is {self.status}, {self.reason}" + (f": {self.message}" if self.message else "")


@dataclass(frozen=True, slots=True)
class PlacementView:
    """A replica with its reserved devices. Scores are 0 to 1."""

    replica: int
    state: str
    pod: str = ""
    node: str = ""
    devices: tuple[str, ...] = ()
    message: str = ""
    score: tuple[tuple[str, float], ...] = ()
    demand_mib: int | None = None
    """Learned demand that it counts with instead of its promise, from `demand_runs` runs."""
    demand_runs: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadView:
    namespace: str
    name: str
    uid: str
    state: str
    ready: str
    replicas: int
    devices_per_replica: int
    gang: bool
    strategy: str
    suspended: bool
    current: bool
    """The status describes the current spec."""
    conditions: tuple[ConditionView, ...]
    placements: tuple[PlacementView, ...]
    explanation: Json
    memory_mib: int | None = None

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    def condition(self, kind: str) -> ConditionView | None:
        """Returns the condition of a type; None: the operator has not set it."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def verdict(self) -> ConditionView | None:
        """Returns the condition that summarizes the workload: Failed, Complete or Suspended if True, else Ready."""
        ended = (self.condition(kind) for kind in ("Failed", "Complete", "Suspended"))
        return next((c for c in ended if c is not None and c.status == "True"), self.condition("Ready"))


def workload_view(body: Json) -> WorkloadView:
    """Decodes a GPUWorkload."""
    meta, spec, status = (as_map(body.get(name)) for name in ("metadata", "spec", "status"))
    devices, placement = as_map(spec.get("devices")), as_map(spec.get("placement"))
    return WorkloadView(
        namespace=text(meta.get("namespace")) or "default",
        name=text(meta.get("name")),
        uid=text(meta.get("uid")),
        state=text(status.get("state")) or "Pending",
        ready=text(status.get("ready")) or f"0/{spec.get('replicas', 1)}",
        replicas=number(spec.get("replicas", 1)),
        devices_per_replica=number(devices.get("count", 1)),
        gang=placement.get("gang") is True,
        strategy=text(placement.get("strategy")) or "Best",
        suspended=spec.get("suspend") is True,
        current=number(status.get("observedGeneration")) >= number(meta.get("generation")),
        conditions=tuple(map(_condition, maps(status.get("conditions")))),
        placements=tuple(sorted(map(_placement, maps(status.get("placements"))), key=lambda p: p.replica)),
        explanation=as_map(status.get("explanation")),
        memory_mib=number(devices.get("memoryMiB")) or None,
    )


def _condition(body: Json) -> ConditionView:
    return ConditionView(*(text(body.get(name)) for name in ("type", "status", "reason", "message")))


def _placement(body: Json) -> PlacementView:
    score = as_map(body.get("score"))
    return PlacementView(
        replica=number(body.get("replica")),
        state=text(body.get("state")) or "Pending",
        pod=text(body.get("pod")),
        node=text(body.get("node")),
        devices=tuple(map(text, as_list(body.get("devices")))),
        message=text(body.get("message")),
        score=tuple((name, number(value) / 1000) for name, value in score.items()),
        demand_mib=number(body.get("demandMiB")) or None,
        demand_runs=number(body.get("demandRuns")),
    )
