"""GPUs with their holders, reservations and cordons, and the one word that says whether a GPU can be used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.names import STALE_AFTER_SECONDS
from gpufleet_cli.freshness import Renewals, time_of, written_at
from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, number, text


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that holds a GPU, or for which it is reserved. Without a reservation, `workload` and `replica` are None."""

    namespace: str
    pod: str
    container: str
    workload: str | None = None
    replica: int | None = None
    memory_mib: int | None = None
    compute_percent: int | None = None
    shared: bool = False
    held: bool = False
    """The kubelet has given the GPU to the container. False: it is reserved only."""
    terminating: bool = False
    overuse_mib: int | None = None
    """Memory in use, while it is more than was promised."""


@dataclass(frozen=True, slots=True)
class CordonView:
    """Why a GPU is out of service."""

    reason: str
    by: str | None = None
    until: str | None = None
    drain: bool = False

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        until = f" until {self.until}" if self.until else ""
        return f"{'draining, ' if self.drain else ''}cordoned{by}{until}: {self.reason}"


@dataclass(frozen=True, slots=True)
class GPUView:
    """A GPU of a node. A value that is not reported, or too old, is None."""

    node: str
    index: int
    uuid: str
    model: str
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_milliwatts: int | None = None
    process_count: int | None = None
    healthy: bool = True
    faults: tuple[str, ...] = ()
    """`XidError (XID 79: ...)`."""
    fault_codes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    withheld: str = ""
    not_current: str = ""
    """Why the values are not current, such as Stale; empty: they are."""
    cordon: CordonView | None = None
    uses: tuple[PodUse, ...] = ()

    @property
    def holders(self) -> tuple[PodUse, ...]:
        return tuple(use for use in self.uses if use.held)

    @property
    def state(self) -> str:
        """Returns the reason why the GPU cannot be used, or how it is used, in one word."""
        if self.not_current:
            return self.not_current
        if not self.healthy:
            return self.fault_codes[0] if self.fault_codes else "Unhealthy"
        if self.cordon is not None:
            return "Draining" if self.cordon.drain and self.holders else "Cordoned"
        if self.withheld:
            return "Withheld"
        if self.uses:
            if any(use.shared or use.memory_mib is not None for use in self.uses):
                return "Shared"
            return "InUse" if self.holders else "Reserved"
        return "ForeignProcess" if self.process_count else "Free"

    @property
    def detail(self) -> str:
        """Returns the faults, the cordon, or why the GPU is withheld; empty: nothing is wrong."""
        if self.faults:
            return ", ".join(self.faults)
        if self.cordon is not None:
            return str(self.cordon)
        return self.withheld or ", ".join(self.warnings)


@dataclass(frozen=True, slots=True)
class NodeGPUs:
    """The GPUs of a node, as reported."""

    node: str
    gpus: tuple[GPUView, ...]
    state: str
    """Ready, Stale, NoDriver, Invalid or NoReport."""
    message: str = ""
    agent_version: str = ""


def node_gpus(telemetry: Json, now: datetime | None, renewals: Renewals | None = None) -> NodeGPUs:
    """Decodes a GPUTelemetry.

    Args:
        telemetry: The object.
        now: The current time; None: the age of the report does not count.
        renewals: Renewals of the Leases of agents; None: none.
    """
    name, status = text(as_map(telemetry.get("metadata")).get("name")), as_map(telemetry.get("status"))
    written = written_at(telemetry) if now is not None else None
    age = None if now is None or written is None else (renewals or Renewals()).age_seconds(telemetry, written, now)
    state, message = _state(status, age)
    spec = as_map(telemetry.get("spec"))
    uses, cordons = _reservations(spec), _cordons(spec, now)
    not_current = "" if state == "Ready" else state
    devices = sorted(maps(status.get("devices")), key=lambda d: number(d.get("index")))
    gpus = tuple(_gpu(name, d, not_current, uses.get(text(d.get("uuid")), ()), cordons) for d in devices)
    return NodeGPUs(name, gpus, state, message, text(status.get("agentVersion")))


def _state(status: Json, age: float | None) -> tuple[str, str]:
    """Returns the state in one word and its message. The operator's condition counts, and so does the age."""
    if not status.get("observedAt"):
        return "NoReport", "the agent has not reported yet"
    for condition in maps(status.get("conditions")):
        if condition.get("type") == "Fresh" and condition.get("status") == "False":
            return text(condition.get("reason")) or "Stale", text(condition.get("message"))
    if age is not None and age > STALE_AFTER_SECONDS:
        return "Stale", f"the telemetry is {age:.0f} s old"
    state = text(as_map(status.get("summary")).get("state")) or "Ready"
    return state, "" if state == "Ready" else "driver not available on the node"


def _reservations(spec: Json) -> Mapping[str, tuple[PodUse, ...]]:
    found: dict[str, tuple[PodUse, ...]] = {}
    for entry in maps(spec.get("assignments")):
        use = PodUse(
            namespace=text(entry.get("namespace")),
            pod=text(entry.get("pod")),
            container=text(entry.get("container")),
            workload=text(entry.get("workload")) or None,
            replica=number(entry.get("replica")),
            memory_mib=_amount(entry.get("memoryMiB")),
            compute_percent=_amount(entry.get("computePercent")),
            shared=entry.get("memoryMiB") is not None,
        )
        for uuid in as_list(entry.get("devices")):
            found[text(uuid)] = (*found.get(text(uuid), ()), use)
    return found


def _cordons(spec: Json, now: datetime | None) -> Mapping[str, CordonView]:
    """Returns the entries in force, by UUID; all of them when `now` is unknown."""
    found = {}
    for entry in maps(spec.get("cordoned")):
        end = time_of(entry.get("until"))
        if now is None or end is None or now < end:
            by, until = text(entry.get("by")) or None, text(entry.get("until")) or None
            cordon = CordonView(text(entry.get("reason")), by, until, entry.get("drain") is True)
            found[text(entry.get("uuid"))] = cordon
    return found


def _gpu(
    node: str, device: Json, not_current: str, reserved: Iterable[PodUse], cordons: Mapping[str, CordonView]
) -> GPUView:
    uuid, health = text(device.get("uuid")), as_map(device.get("health"))
    values = {} if not_current else device
    reasons = tuple(maps(health.get("reasons")))
    return GPUView(
        node=node,
        index=number(device.get("index")),
        uuid=uuid,
        model=text(device.get("model")),
        memory_total_mib=_amount(device.get("memoryTotalMiB")),
        memory_used_mib=_amount(values.get("memoryUsedMiB")),
        utilization_percent=_amount(values.get("utilizationPercent")),
        temperature_celsius=_amount(values.get("temperatureCelsius")),
        power_milliwatts=_amount(values.get("powerMilliwatts")),
        process_count=_amount(values.get("processCount")),
        healthy=health.get("state") != "Unhealthy",
        faults=tuple(map(_fault, reasons)),
        fault_codes=tuple(text(r.get("code")) for r in reasons),
        warnings=tuple(map(_fault, maps(health.get("warnings")))),
        withheld=text(device.get("withheld")),
        not_current=not_current,
        cordon=cordons.get(uuid),
        uses=_uses(device, tuple(reserved)),
    )


def _uses(device: Json, reserved: tuple[PodUse, ...]) -> tuple[PodUse, ...]:
    """Returns the holders, each with its reservation if it has one, and then the reservations without a holder."""
    by_pod = {(use.namespace, use.pod): use for use in reserved}
    found = []
    for holder in maps(device.get("allocatedTo")):
        namespace, pod = text(holder.get("namespace")), text(holder.get("pod"))
        use = by_pod.pop((namespace, pod), None)
        overuse = as_map(holder.get("overuse"))
        found.append(
            PodUse(
                namespace=namespace,
                pod=pod,
                container=text(holder.get("container")),
                workload=use.workload if use else None,
                replica=use.replica if use else None,
                memory_mib=_amount(holder.get("memoryMiB")),
                compute_percent=_amount(holder.get("computePercent")),
                shared=holder.get("shared") is True,
                held=True,
                terminating=holder.get("terminating") is True,
                overuse_mib=_amount(overuse.get("memoryUsedMiB")),
            )
        )
    return (*found, *by_pod.values())


def _fault(reason: Json) -> str:
    code, message = text(reason.get("code")), text(reason.get("message"))
    return f"{code} ({message})" if message else code


def _amount(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
