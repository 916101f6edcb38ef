"""Whether a successor can use the devices of its predecessor."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from gpufleet_api.workload import GPUWorkload, Requirements
from gpufleet_operator.decide.claims.transports import fits_transport
from gpufleet_operator.decide.plan import FleetSource
from gpufleet_operator.decide.retries.pause_rules import excluded_nodes
from gpufleet_operator.demand.learned_share import placed_share, with_learned_demand
from gpufleet_operator.fleet.build import build
from gpufleet_operator.fleet.cordons import has_cordoned_device
from gpufleet_operator.fleet.device_health import reported_unhealthy_devices
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod, Reservation
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.errors import PlacementError
from gpufleet_operator.placement.explain.diagnosis import rejections_by_node
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import FilterReason, PodNeeds, Request, Share

_LASTING = frozenset(
    {
        FilterReason.NODE_UNSCHEDULABLE,
        FilterReason.NODE_SELECTOR,
        FilterReason.NODE_AFFINITY,
        FilterReason.TAINT,
        FilterReason.MODEL,
        FilterReason.COMPUTE_CAPABILITY,
        FilterReason.INSUFFICIENT_CPU,
        FilterReason.INSUFFICIENT_MEMORY,
        FilterReason.TOO_MANY_PODS,
        FilterReason.TOPOLOGY,
    }
)
"""Reasons that do not end within seconds. Others may: a report that is not written yet, a process that is ending."""


class FitResult(StrEnum):
    """Whether a successor can use the devices of its predecessor."""

    FITS = "Fits"
    WAIT = "Wait"
    RELEASE = "Release"
    """It never can: the devices are released."""


@dataclass(frozen=True, slots=True)
class _Deduction:
    """Arguments of `Fleet.hold` and `Fleet.release`."""

    node: str
    devices: tuple[str, ...]
    pod: PodNeeds
    share: Share | None


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of one check; `message` is the reason to wait."""

    result: FitResult
    message: str = ""
    deducted: _Deduction | None = None
    """The devices that the fit deducted from the fleet."""


class SuccessorFit:
    """Checks successors one after the other; each one that fits is deducted from the fleet.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        ledger: Without the kept reservations whose predecessor has ended.
        source: Of the pods that restrict where others run.
    """

    def __init__(self, snapshot: Snapshot, state: PassState, ledger: Ledger, source: FleetSource) -> None:
        self.snapshot, self.state = snapshot, state
        self._fleet: Fleet = build(snapshot, ledger).fleet
        self._pods = source.pods(snapshot, ledger)
        self._held: list[_Deduction] = []

    def check(self, assessed: WorkloadReplicas, replica: Replica, kept: Reservation) -> Fit:
        """Returns whether exactly these devices can serve the replica's pod."""
        workload = assessed.workload
        if workload.model is None or replica.pod is None:
            raise TypeError(f"{workload.full_name} has no model or no pod")  # only gated replicas are checked
        if not fits_transport(self.snapshot, replica.pod, kept.node):
            return Fit(FitResult.RELEASE)
        if self._is_excluded(workload.model, workload.uid, replica.index, kept):
            return Fit(FitResult.RELEASE)
        requested = self._request(assessed, workload.model, replica, replica.pod, kept)
        try:
            decision = place(self._fleet, requested)
        except PlacementError:
            return Fit(FitResult.RELEASE)
        for pick in decision.picks:
            part = placed_share(self.snapshot, workload, workload.model.spec, [replica.pod])
            deducted = _Deduction(pick.node, pick.devices, replica.pod.needs, part)
            self._fleet.hold(deducted.node, deducted.devices, deducted.pod, deducted.share)
            self._held.append(deducted)
            self._pods.add(deducted.node, replica.pod.traits)
            return Fit(FitResult.FITS, deducted=deducted)
        why = decision.diagnosis
        if why is None or any(r.reason in _LASTING for r in why.rejected):
            return Fit(FitResult.RELEASE)
        return Fit(FitResult.WAIT, f"devices on {kept.node} are kept; {self._why_not_yet(requested, kept)}")

    def _why_not_yet(self, requested: Request, kept: Reservation) -> str:
        # Of the node of the devices alone: other nodes cannot serve the replica, and a decision on what changed has
        # only some of them.
        rejected = rejections_by_node(self._fleet, requested, requested.replicas[0]).get(kept.node, ())
        counts = [f"{r.devices} {PHRASES[r.reason]}" for r in rejected if r.reason is not FilterReason.NOT_INCLUDED]
        return f"they cannot be used yet: {', '.join(counts)}"

    def undo(self, fits: Iterable[Fit]) -> None:
        """Credits what these fits deducted."""
        for deducted in [fit.deducted for fit in fits if fit.deducted is not None]:
            self._credit(deducted)

    @property
    def number_held(self) -> int:
        """Number of fits that are deducted."""
        return len(self._held)

    def undo_to(self, number: int) -> None:
        """Credits all but this number of the first fits."""
        for deducted in reversed(self._held[number:]):
            self._credit(deducted)

    def _credit(self, deducted: _Deduction) -> None:
        self._fleet.release(deducted.node, deducted.devices, deducted.pod, deducted.share)
        self._held.remove(deducted)

    def _is_excluded(self, model: GPUWorkload, workload_uid: str, index: int, kept: Reservation) -> bool:
        """Returns True when requirements, health, a cordon or a rejection of the node exclude the devices."""
        needed, devices = model.spec.requirements or Requirements(), set(kept.assignment.devices)
        if (needed.include_uuids and not devices <= set(needed.include_uuids)) or devices & set(needed.exclude_uuids):
            return True
        if kept.node in excluded_nodes(self.snapshot, self.state, workload_uid, [index])[index]:
            return True
        if has_cordoned_device(self.snapshot, kept.node, kept.assignment):
            return True
        telemetry = self.snapshot.telemetry.get(kept.node)
        return telemetry is None or bool(reported_unhealthy_devices(telemetry, kept.assignment))

    def _request(
        self, assessed: WorkloadReplicas, model: GPUWorkload, replica: Replica, pod: Pod, kept: Reservation
    ) -> Request:
        siblings = Counter(r.reservation.node for r in assessed.replicas if r.reservation is not None)
        requested = request(
            model,
            replicas=(replica.index,),
            resources=self.snapshot.limits.resources,
            excluded_nodes={replica.index: frozenset(self.snapshot.telemetry) - {kept.node}},
            placed_replicas=siblings,
        )
        requested = with_learned_demand(requested, self.snapshot, assessed.workload, [pod])
        devices = replace(
            requested.devices,
            min_free_memory_mib=None,
            max_utilization_percent=None,
            max_temperature_celsius=None,
            include_uuids=frozenset(kept.assignment.devices),
            exclude_uuids=frozenset(),
        )
        return self._pods.restrict(replace(requested, devices=devices, gang=False), model.spec.requirements, pod)
