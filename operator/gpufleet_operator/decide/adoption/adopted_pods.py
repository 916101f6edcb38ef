"""Assesses the pods of a workload without a template. They have other owners, which create, replace and end them.

Each pod with the label is a replica, until it ends. With `placement.gang`, `spec.replicas` pods belong together.
"""

from collections.abc import Sequence

from gpufleet_api.names import MAX_REPLICAS, SCHEDULING_GATE
from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.decide.adoption.indices import index_pods, known_indices, own_index
from gpufleet_operator.decide.adoption.pod_check import pod_errors
from gpufleet_operator.decide.adoption.settled_nodes import needs_settled_node, unsettled_reason
from gpufleet_operator.decide.assessment.pod_assessor import PodAssessor
from gpufleet_operator.ledger.verify import rejected_by_kubelet
from gpufleet_operator.model.objects import Pod, PodPhase
from gpufleet_operator.model.pod_state.problems import failure
from gpufleet_operator.model.replica import (
    RemovalReason,
    Replica,
    UnplacedPod,
    UnplacedReason,
    WaitReason,
    WorkloadReplicas,
)

_ORDERED = "; if podManagementPolicy of the StatefulSet is OrderedReady, set it to Parallel"


class AdoptedPodAssessor(PodAssessor):
    """Assesses the pods of one workload without a template."""

    def assess_all(self, pods: Sequence[Pod]) -> WorkloadReplicas:
        """Returns one replica for each pod that has not ended, or has succeeded; with a gang also for missing pods."""
        gang = self.spec.placement.gang
        size = self.spec.replicas if gang else MAX_REPLICAS
        present = [pod for pod in pods if not pod.deleting]
        unplaced = [found for pod in present if (found := self._unplaced(pod)) is not None]
        excluded = {found.pod.uid for found in unplaced}
        active = [pod for pod in present if not pod.terminal and pod.uid not in excluded]
        known = self._known(present)
        indexed = index_pods(active, known, size, closed=gang)
        succeeded = self._succeeded(present, active, known, size)
        replicas = {index: Replica(index, PlacementState.SUCCEEDED, pod=pod) for index, pod in succeeded.items()}
        for index, pod in indexed.by_index.items():
            replicas[index] = self._replica(index, pod)
        failed = [pod for pod in present if pod.phase is PodPhase.FAILED]
        self._count_rejected(failed, known)
        if gang and (active or unplaced):
            missing = self._missing(active, failed, known, [i for i in range(size) if i not in replicas])
            replicas |= {replica.index: replica for replica in missing}
        unplaced += [UnplacedPod(pod, UnplacedReason.SURPLUS, self._surplus_message()) for pod in indexed.surplus]
        ordered = tuple(replicas[index] for index in sorted(replicas))
        return WorkloadReplicas(self.workload, self.spec, ordered, tuple(self.removals), unplaced=tuple(unplaced))

    def _known(self, pods: Sequence[Pod]) -> dict[str, int]:
        reserved = {p.uid: self.ledger.active[p.uid].assignment.replica for p in pods if p.uid in self.ledger.active}
        placements = self.workload.stored_placements.items()
        return known_indices(pods, reserved, {p.pod_uid: index for index, p in placements if p.pod_uid is not None})

    def _unplaced(self, pod: Pod) -> UnplacedPod | None:
        """Returns why an active pod is not placed; None: it is a replica."""
        if pod.terminal:
            return None
        if SCHEDULING_GATE in pod.gates:
            errors = "; ".join(pod_errors(self.workload, self.spec, pod, self.snapshot.limits))
            return UnplacedPod(pod, UnplacedReason.INVALID_POD, errors) if errors else None
        if pod.assigned or pod.uid in self.ledger.active:
            return None
        message = (
            f"created without the scheduling gate {SCHEDULING_GATE}; add it to the pod template and delete the pod"
        )
        return UnplacedPod(pod, UnplacedReason.UNGATED, message)

    def _replica(self, index: int, pod: Pod) -> Replica:
        if not pod.gates:
            return self.released(index, pod)
        if self.spec.suspend:
            reserved, message = self.ledger.active.get(pod.uid), "spec.suspend is true"
            return Replica(index, PlacementState.PENDING, WaitReason.RESUME, pod, reserved, message=message)
        found = self.gated(index, pod)
        if found.state is PlacementState.RESERVED and found.reservation is not None and needs_settled_node(pod):
            reason = unsettled_reason(self.snapshot, found.reservation.node)
            if reason is not None:
                return Replica(
                    index, PlacementState.PENDING, WaitReason.DEVICES, pod, found.reservation, message=reason
                )
        return found

    def _succeeded(
        self, present: Sequence[Pod], active: Sequence[Pod], known: dict[str, int], size: int
    ) -> dict[int, Pod]:
        """Returns the pods that succeeded, by index; those of earlier runs of a Job do not count."""
        ended = sorted((p for p in present if p.phase is PodPhase.SUCCEEDED), key=lambda p: (p.created, p.uid))
        runs = {p.run for p in active} or {p.run for p in ended[-1:]}
        current = [p for p in ended if p.run in ("", *runs)]
        return dict(index_pods(current, known, size, closed=self.spec.placement.gang).by_index)

    def _count_rejected(self, failed: Sequence[Pod], known: dict[str, int]) -> None:
        """Records which nodes rejected pods: the owner has counted or replaced these already."""
        for pod in failed:
            if rejected_by_kubelet(pod):
                index = own_index(pod, known) or 0
                self.remove([pod], index, RemovalReason.REJECTED, failure(pod), pod.node)

    def _missing(
        self, active: Sequence[Pod], failed: Sequence[Pod], known: dict[str, int], indices: Sequence[int]
    ) -> list[Replica]:
        ended = {own_index(pod, known): pod for pod in failed}
        ordered = any(p.owner is not None and p.owner.kind == "StatefulSet" for p in active)
        total = self.spec.replicas
        message = f"{total - len(indices)} of {total} pods of the gang exist{_ORDERED if ordered else ''}"
        replicas = []
        for index in indices:
            last = f"; pod {ended[index].name} failed: {failure(ended[index])}" if index in ended else ""
            replicas.append(Replica(index, PlacementState.PENDING, WaitReason.OWNER, message=f"{message}{last}"))
        return replicas

    def _surplus_message(self) -> str:
        if not self.spec.placement.gang:
            return f"a GPUWorkload places at most {MAX_REPLICAS} pods"
        return (
            f"the {self.spec.replicas} replicas of the gang (spec.replicas) have other pods; in a rolling update of a"
            " Deployment, maxSurge must be 0"
        )
