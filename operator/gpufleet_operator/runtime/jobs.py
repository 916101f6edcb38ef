"""Orders the writes of one decision: the limits that each counts against, and the writes that it depends on."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from gpufleet_operator.model.actions import (
    Action,
    Actions,
    CreatePod,
    CreateService,
    DeletePod,
    DeleteWorkload,
    EvictPod,
    ReleasePod,
    Reserve,
    RestoreFinalizer,
    RestoreService,
    WriteStatus,
    release_key,
    status_key,
)
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.report_actions import (
    ExplainPod,
    WriteNodeCondition,
    WriteTelemetryConditions,
    explain_key,
)
from gpufleet_operator.runtime.lanes import Lane, LaneKey

Write = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """How a write ended."""

    action: Action
    failure: str | None = None
    """Message of the error; None: no error."""
    conflict: bool = False
    """The object changed after the decision, so the next pass decides again. Not an error."""
    unconfirmed: bool = False
    """There was no response: the write may have been applied."""
    unsent: bool = False
    """Not sent: a write that it depends on failed, or its lane is full. It is decided again."""

    @property
    def succeeded(self) -> bool:
        return self.failure is None and not self.conflict and not self.unsent


@dataclass(eq=False, slots=True)
class Job:
    """One write.

    Args:
        action: What is written.
        lane_key: The limits that it counts against.
        write: Writes it.
        needs: Jobs that must succeed before.
        follows: Jobs that must have ended before.
    """

    action: Action
    lane_key: LaneKey
    write: Write
    needs: tuple["Job", ...] = ()
    follows: tuple["Job", ...] = ()
    sent: bool = False
    held: bool = False
    """The status is held back, and is written later."""
    outcome: WriteOutcome | None = None
    """None: it has not ended."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self) -> None:
        """Ends a job that is not sent."""
        self.outcome = WriteOutcome(self.action, unsent=True)
        self.ended.set()

    @property
    def dropped(self) -> bool:
        """True when it was not sent: a write that it depends on failed, or its lane is full."""
        return self.outcome is not None and self.outcome.unsent

    @property
    def keys(self) -> Iterator[str]:
        """Yields the key of the write, and the keys of writes that must not be decided before its response."""
        yield self.action.key
        if isinstance(self.action, Reserve):
            yield from map(status_key, _workloads_reserved_for(self.action))
        for uid in self.pods:
            yield explain_key(uid)
            yield release_key(uid)

    @property
    def pods(self) -> tuple[str, ...]:
        """Returns the UIDs of the pods that the reservation, claim or release is for."""
        if isinstance(self.action, Reserve):
            return self.action.added
        return (self.action.pod_uid,) if isinstance(self.action, CreateClaim | ReleasePod) else ()

    @property
    def namespaces(self) -> frozenset[str]:
        """Returns the namespaces of the pods that wait for this write: for their creation, reservation or release."""
        if isinstance(self.action, Reserve):
            added = set(self.action.added)
            return frozenset(a.namespace for a in self.action.assignments if a.pod_uid in added)
        placing = self.lane_key.lane in (Lane.CREATE, Lane.RELEASE)
        return frozenset({self.lane_key.scope}) if placing else frozenset()


def lane_key_of(action: Action) -> LaneKey:
    """Returns the limits that a write counts against."""
    match action:
        case Reserve():
            return LaneKey(Lane.RESERVE)
        case CreateClaim() | DeleteClaim() | ReleasePod():
            return LaneKey(Lane.RELEASE, action.namespace)
        case CreatePod():
            return LaneKey(Lane.CREATE, action.namespace, action.workload_uid)
        case CreateService() | RestoreService():
            return LaneKey(Lane.CREATE, str(action.body["metadata"]["namespace"]))
        case DeletePod() | EvictPod() | RestoreFinalizer() | DeleteWorkload():
            return LaneKey(Lane.REMOVE, action.namespace)
        case WriteStatus():
            return LaneKey(Lane.STATUS, action.namespace)
        case ExplainPod():
            return LaneKey(Lane.REPORT, action.namespace)
        case WriteTelemetryConditions() | WriteNodeCondition():
            return LaneKey(Lane.REPORT)


@dataclass(frozen=True, slots=True)
class JobFactory:
    """Makes the jobs of a decision.

    Args:
        write: Writes an action.
        new_check: Returns a check of the gangs of one namespace: see `GangCheck`.
    """

    write: Callable[[Action], Awaitable[None]]
    new_check: Callable[[], Callable[[list[CreatePod]], Awaitable[None]]]

    def jobs(self, actions: Actions) -> list[Job]:
        """Returns the jobs in the order in which they begin: a job comes after those that it depends on.

        A claim is created after the reservation of its devices, and a pod is released after the reservations of all
        nodes and the claims that it needs. A status lists devices as reserved, and a
        pod as deleted, so it follows the other writes of its workload. An expired workload is deleted last.
        """
        changes = [self._job(a) for group in (actions.services, actions.restored_services) for a in group]
        changes += self._creations(actions.creates)
        for group in (actions.deletes, actions.evictions, actions.restores):
            changes += [self._job(action) for action in group]
        reserves = {action.node: self._job(action) for action in actions.reserves}
        claims = {action.pod_uid: self._after(action, reserves, {}) for action in actions.claims}
        releases = [self._after(action, reserves, claims, action.after_claims) for action in actions.releases]
        changes += [self._job(action) for action in actions.deleted_claims]
        of_workload: dict[str, list[Job]] = defaultdict(list)
        for job in (*changes, *claims.values(), *releases):
            if isinstance(job.action, CreatePod | DeletePod | CreateClaim | DeleteClaim | ReleasePod):
                of_workload[job.action.workload_uid].append(job)
        for reserve in actions.reserves:
            for uid in _workloads_reserved_for(reserve):
                of_workload[uid].append(reserves[reserve.node])
        statuses = [self._job(s, needs=of_workload[s.workload_uid]) for s in actions.statuses]
        last = {job.action.key: job for job in statuses}
        expired = [
            self._job(e, follows=[last[key]] if (key := status_key(e.workload_uid)) in last else [])
            for e in actions.expired
        ]
        reports = actions.reports
        told = [self._job(r) for group in (reports.telemetry, reports.nodes, reports.pods) for r in group]
        return [*changes, *reserves.values(), *claims.values(), *releases, *statuses, *expired, *told]

    def _job(self, action: Action, needs: Iterable[Job] = (), follows: Iterable[Job] = ()) -> Job:
        return Job(action, lane_key_of(action), partial(self.write, action), tuple(needs), tuple(follows))

    def _after(
        self,
        action: CreateClaim | ReleasePod,
        reserves: Mapping[str, Job],
        claims: Mapping[str, Job],
        after_claims: Iterable[str] = (),
    ) -> Job:
        """Returns a job that is never sent if what it needs is not part of the decision."""
        needed = [reserves.get(node) for node in sorted(action.after)]
        needed += [claims.get(uid) for uid in sorted(after_claims)]
        return self._job(action, needs=[job if job is not None else _never(action) for job in needed])

    def _creations(self, creates: Iterable[CreatePod]) -> list[Job]:
        """Returns the creations of pods. The gangs of a namespace follow one another, so the first gets the quota."""
        found: list[Job] = []
        gangs: dict[str, dict[str, list[CreatePod]]] = {}
        for create in creates:
            if create.gang:
                gangs.setdefault(create.namespace, {}).setdefault(create.workload_uid, []).append(create)
            else:
                found.append(self._job(create))
        for of_namespace in gangs.values():
            previous: list[Job] = []
            check = self.new_check()
            for members in of_namespace.values():
                previous = self._gang(members, previous, check)
                found += previous
        return found

    def _gang(
        self, members: list[CreatePod], previous: list[Job], check: Callable[[list[CreatePod]], Awaitable[None]]
    ) -> list[Job]:
        """Returns the creations of one gang: the first one also checks all, and the others need it."""

        async def check_and_create() -> None:
            await check(members)
            await self.write(members[0])

        first = Job(members[0], lane_key_of(members[0]), check_and_create, follows=tuple(previous))
        return [first, *(self._job(member, needs=[first]) for member in members[1:])]


def _workloads_reserved_for(action: Reserve) -> set[str]:
    """Returns the uids of the workloads to which a write adds reservations."""
    added = set(action.added)
    return {a.workload_uid for a in action.assignments if a.pod_uid in added}


def _never(action: Action) -> Job:
    async def nothing() -> None: ...

    job = Job(action, lane_key_of(action), nothing)
    job.drop()
    return job
