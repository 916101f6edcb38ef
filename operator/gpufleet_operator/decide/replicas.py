"""Assesses the replicas of each workload, and finds the pods that must be deleted.

Level-triggered: the result depends on the snapshot and the state only, not on past events. A restart of the operator or
a lost event between any two steps leads to the same result, a little later.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial

from gpufleet_api.workload_status import PlacementState
from gpufleet_common import timestamps
from gpufleet_operator.decide.adoption.adopted_pods import AdoptedPodAssessor
from gpufleet_operator.decide.assessment.pod_assessor import PodAssessor
from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.decide.lifecycle import attempts, losses
from gpufleet_operator.decide.lifecycle.attempts import ReplicaPods
from gpufleet_operator.decide.lifecycle.losses import stored_restart
from gpufleet_operator.decide.lifecycle.run_policy import apply_run_policy
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.ledger.kept import key_of
from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.ledger.verify import nodes_with_device_status, rejected_by_kubelet
from gpufleet_operator.model.objects import Pod, PodDeletion, PodPhase
from gpufleet_operator.model.outcome import Outcome, stored_outcome
from gpufleet_operator.model.pod_state.problems import failure
from gpufleet_operator.model.replica import RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_NO_REPLICA = -1
_ON_A_NODE = (PlacementState.BOUND, PlacementState.ALLOCATED)


def assess(snapshot: Snapshot, state: PassState, ledger: Ledger, guard: WorkloadGuard) -> tuple[WorkloadReplicas, ...]:
    """Returns the replicas of every workload that parses and is not being deleted.

    An invalid template (an edit of a workload that runs) only prevents that pods are created or released.

    An owner is in the namespace of its pods. A pod in another namespace that names the workload's uid is forged or a
    mistake. It is ignored, as garbage collection treats its owner as absent.
    """
    pods: dict[tuple[str, str], list[Pod]] = {}
    adoptable: dict[tuple[str, str], list[Pod]] = {}
    for pod in snapshot.pods.values():
        if pod.workload_uid:
            pods.setdefault((pod.namespace, pod.workload_uid), []).append(pod)
        else:
            adoptable.setdefault((pod.namespace, pod.workload_label), []).append(pod)
    assessed: list[WorkloadReplicas] = []
    kubelets = nodes_with_device_status(snapshot)
    for uid, check in snapshot.templates.items():
        workload = snapshot.workloads[uid]
        if workload.model is None or workload.deleting:
            continue
        spec = workload.model.spec
        assessor = (AdoptedPodAssessor if spec.adopts else _ReplicaAssessor)(
            workload, spec, snapshot, state, ledger, template_errors=check.errors, kubelets=kubelets
        )
        if spec.adopts:
            found = adoptable.get((workload.namespace, workload.name), [])
        else:
            found = pods.get((workload.namespace, uid), [])
        replicas = guard.call(uid, partial(assessor.assess_all, found))
        if replicas is not None:
            assessed.append(replicas)
    return tuple(assessed)


class _ReplicaAssessor(PodAssessor):
    """Assesses the replicas of one workload."""

    def assess_all(self, pods: Iterable[Pod]) -> WorkloadReplicas:
        """Returns all replicas, by the pods that the workload controls."""
        outcome = stored_outcome(self.workload)
        if outcome is not None:
            return self._finished(outcome, pods)
        by_index: dict[int | None, list[Pod]] = {}
        for pod in sorted(pods, key=lambda p: (p.created, p.uid)):
            by_index.setdefault(pod.replica, []).append(pod)
        found = tuple(
            attempts.replica_pods(self.workload, self.spec, index, by_index.pop(index, []))
            for index in range(self.spec.replicas)
        )
        for surplus in by_index.values():
            self.remove(surplus, _NO_REPLICA, RemovalReason.SURPLUS, "no replica with this index")
        restart = stored_restart(self.workload, self.snapshot.now)
        starts = attempts.next_starts(self.snapshot, restart, self.spec, found)
        replicas = []
        for pods_of in found:
            self.remove(
                pods_of.obsolete, pods_of.index, RemovalReason.RESTARTED, f"superseded by attempt {pods_of.attempt}"
            )
            replica = self._replica(pods_of, starts.get(pods_of.index))
            unreachable = self._unreachable(replica)
            replicas.append(
                replace(
                    replica,
                    attempt=pods_of.attempt,
                    failures=pods_of.failures,
                    ready=replica.ready and not unreachable,
                    unreachable=unreachable,
                )
            )
        assessed = WorkloadReplicas(
            self.workload,
            self.spec,
            tuple(replicas),
            tuple(self.removals),
            template_errors=self.template_errors,
            group_restart=restart,
            earlier_failures=attempts.earlier_failures(self.workload, self.spec),
            surplus_pods=sum(map(len, by_index.values())),
        )
        return apply_run_policy(self.snapshot, self.ledger, assessed, found)

    def _finished(self, outcome: Outcome, pods: Iterable[Pod]) -> WorkloadReplicas:
        """Removes the pods that have not ended; the others are kept for their logs until the workload is deleted."""
        message = "workload is complete" if outcome.complete else "workload has failed"
        for pod in pods:
            if not pod.terminal:
                index = _NO_REPLICA if pod.replica is None else pod.replica
                self.remove([pod], index, RemovalReason.FINISHED, message)
        replicas = tuple(
            Replica(
                index,
                placement.state if placement.state is PlacementState.SUCCEEDED else PlacementState.FAILED,
                message=placement.message or "",
                attempt=placement.attempt or 0,
                failures=placement.failures or 0,
            )
            for index, placement in sorted(self.workload.stored_placements.items())
        )
        return WorkloadReplicas(
            self.workload,
            self.spec,
            replicas,
            tuple(self.removals),
            outcome,
            template_errors=self.template_errors,
            earlier_failures=attempts.unlisted_failures(self.workload),
        )

    def _replica(self, found: ReplicaPods, start: datetime | None) -> Replica:
        """Assesses one replica by the pods of its attempt, oldest first. One that is being deleted no longer counts."""
        index, present = found.index, [p for p in found.current if not p.deleting]
        active = [p for p in present if not p.terminal]
        succeeded = next((p for p in present if p.phase is PodPhase.SUCCEEDED), None)
        if succeeded is not None or self.workload.has_succeeded(index) or self._has_gone_succeeded(found):
            self.remove(active, index, RemovalReason.SURPLUS, "replica has succeeded")
            return Replica(index, PlacementState.SUCCEEDED, pod=succeeded)
        if self.spec.suspend:
            self.remove(active, index, RemovalReason.SUSPENDED, "spec.suspend is true")
            return Replica(index, PlacementState.PENDING, message="suspended")
        ended = self._terminal(index, [p for p in present if p.phase is PodPhase.FAILED])
        if ended is not None and ended.state is PlacementState.FAILED:
            return ended
        if active:
            active.sort(key=lambda p: (bool(p.gates), p.uid not in self.ledger.active, p.created, p.uid))
            self.remove(active[1:], index, RemovalReason.SURPLUS, f"superseded by pod {active[0].name}")
            return self.gated(index, active[0]) if active[0].gates else self.released(index, active[0])
        doubt = self._doubt(found)
        if doubt:
            return Replica(index, PlacementState.UNKNOWN, message=doubt)
        return ended or self._without_pod(found, start)

    def _has_gone_succeeded(self, found: ReplicaPods) -> bool:
        """Returns True when the replica's pod succeeded and was deleted before a status was written."""
        stored = self.workload.stored_placements.get(found.index)
        if stored is None or stored.pod_uid is None or (stored.attempt or 0) != found.attempt:
            return False
        if attempts.is_service(self.spec):
            return False  # it never ends: its containers were stopped
        return self.snapshot.deleted_pods.get(stored.pod_uid) is PodDeletion.SUCCEEDED

    def _doubt(self, found: ReplicaPods) -> str:
        """Returns why the replica is not run again: it may have succeeded; empty: it has not, or may run twice.

        Its pod is gone, and was deleted while no operator and no watch saw it. A service, and replicas that all restart
        after the loss of one, run again in any case.
        """
        stored = self.workload.stored_placements.get(found.index)
        if attempts.is_service(self.spec) or attempts.needs_all_replicas(self.spec) or found.current:
            return ""
        if not losses.may_have_ended_unseen(stored, found, self.snapshot.deleted_pods) or stored is None:
            return ""
        key = (self.workload.uid, found.index)
        if any(r.assignment.keep_for_successor and key_of(r) == key for r in self.ledger.occupying):
            return ""  # deleted by the operator, for a changed template
        return (
            f"pod {stored.pod} no longer exists, and it is not known whether it succeeded; to run the replica again, "
            "set spec.suspend to true and then to false"
        )

    def _unreachable(self, replica: Replica) -> str:
        """Returns why the node of a bound pod does not respond: its kubelet does not change the pod's conditions."""
        if replica.pod is None or replica.pod.node is None or replica.state not in _ON_A_NODE:
            return ""
        return unreachable_reason(self.snapshot, replica.pod.node) or ""

    def _without_pod(self, found: ReplicaPods, start: datetime | None) -> Replica:
        if self.template_errors:
            message = "spec.template is invalid: no pod is created"
            return Replica(found.index, PlacementState.PENDING, WaitReason.VALID_TEMPLATE, message=message)
        if start is None or start <= self.snapshot.now:
            return Replica(found.index, PlacementState.PENDING, WaitReason.POD, message="creating pod")
        message = f"attempt {found.attempt} starts at {timestamps.seconds(start)}"
        if found.failed:
            message = f"{failure(found.failed[-1])}; {message}"
        return Replica(
            found.index, PlacementState.PENDING, WaitReason.RESTART_BACKOFF, message=message, starts_at=start
        )

    def _terminal(self, index: int, pods: list[Pod]) -> Replica | None:
        """Replaces pods that the cluster ended. A pod whose application failed is kept."""
        result = None
        for pod in pods:
            message = failure(pod)
            if rejected_by_kubelet(pod):
                self.remove([pod], index, RemovalReason.REJECTED, message, pod.node)
                result = result or Replica(index, PlacementState.REJECTED, pod=pod, message=message)
            elif attempts.has_failed(pod):
                return Replica(index, PlacementState.FAILED, pod=pod, message=message)
            else:
                self.remove([pod], index, RemovalReason.DISRUPTED, message)
                result = result or Replica(index, PlacementState.PENDING, pod=pod, message=message)
        return result
