"""Elects the process that decides, by a Lease. The others are standbys with warm caches.

A process measures with its own monotonic clock only. The holder counts from when it sent its last renewal, a standby
from when it noticed it, so the holder stops writing before a standby takes over, whatever their clocks show. A process
that was frozen finds its Lease expired when it resumes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gpufleet_common import timestamps
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, Sleep
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import (
    ApiError,
    ConflictError,
    CredentialsRejectedError,
    ForbiddenReadError,
    LeadershipLostError,
    LeaseRejectedError,
    NotFoundError,
    UnavailableError,
)
from gpufleet_operator.kube.rejected_requests import LIMIT_SECONDS
from gpufleet_operator.model.lenient_json import Json

LEASE_SECONDS = 10
"""How long a Lease is valid after its last renewal."""
RENEW_SECONDS = 2.0
RETRY_SECONDS = 0.5
"""Interval at which a standby reads the Lease."""
MAX_RETRY_SECONDS = 4.0
"""The same while its requests are rejected."""
WRITE_SECONDS = 5.0
"""Minimum remaining validity of the Lease for a write to begin: the timeout of a placement."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A version of a Lease that another process holds, and when it was first seen."""

    holder: str
    renewed: str
    valid_seconds: float
    seen_at: float
    """By the monotonic clock."""

    def expired(self, now: float) -> bool:
        return now - self.seen_at > self.valid_seconds


def observe(previous: ObservedLease | None, body: Json, now: float) -> ObservedLease:
    """Returns the Lease as it is now. A renewal that was seen before keeps its time."""
    spec: Mapping[str, Any] = body.get("spec") or {}
    found = ObservedLease(
        holder=str(spec.get("holderIdentity") or ""),
        renewed=str(spec.get("renewTime") or ""),
        valid_seconds=float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
        seen_at=now,
    )
    if previous is not None and (previous.holder, previous.renewed) == (found.holder, found.renewed):
        return previous
    return found


class LeaderElection:
    """Acquires, renews and releases the Lease.

    Args:
        api: The apiserver.
        namespace: Of the Lease.
        name: Of the Lease.
        identity: Identity of this process, unique for all time.
        clock: Clock of the times in the Lease, which only people read.
        sleep: Waits between requests.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        clock: ServerClock,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api, self._clock, self._sleep = api, clock, sleep
        self._leases = paths.leases(namespace)
        self._namespace, self._name, self._identity = namespace, name, identity
        self._observed: ObservedLease | None = None
        self._version = ""
        self._acquired_at = ""
        self._transitions = 0
        self._valid_until: float | None = None
        self._rejected_since: float | None = None
        self.rejection = ""
        """Why the apiserver rejects the requests that acquire the Lease; empty: it does not."""

    @property
    def leads(self) -> bool:
        """Returns True from the acquisition to the release."""
        return self._valid_until is not None

    def may_write(self) -> bool:
        """Returns True if a write that begins now ends before another process can take over."""
        return self._valid_until is not None and self._monotonic() < self._valid_until - WRITE_SECONDS

    async def watch(self) -> None:
        """Reads the Lease until cancelled: the time after which it is expired begins when it is first seen."""
        while True:
            with contextlib.suppress(ApiError):  # raised by acquire() if it lasts
                body = await self._api.get(f"{self._leases}/{self._name}")
                self._observed = observe(self._observed, body, self._monotonic())
            await self._sleep(RETRY_SECONDS)

    async def acquire(self) -> None:
        """Returns when this process holds the Lease.

        Raises:
            ApiError: The apiserver rejects reads for a minute or writes for two (no permission).
        """
        pause = RETRY_SECONDS
        while True:
            try:
                if await self._try_to_acquire():
                    log.info("leading", identity=self._identity)
                    return
                pause = RETRY_SECONDS
            except (ForbiddenReadError, LeaseRejectedError) as error:
                # Roles may be replaced at the moment of the start, or of the takeover.
                self.rejection = str(error)
                log.warning("the apiserver rejects the lease, retrying", error=str(error), seconds=pause)
                pause = min(MAX_RETRY_SECONDS, 2 * pause)
            except (UnavailableError, ConflictError, NotFoundError) as error:
                log.info("lease not acquired, retrying", error=str(error))
            await self._sleep(pause)

    async def keep(self) -> None:
        """Renews the Lease until it is released.

        Raises:
            LeadershipLostError: Another process holds it, or it could not be renewed in time.
            CredentialsRejectedError: For minutes.
        """
        while self.leads:
            await self._sleep(RENEW_SECONDS)
            failure: ApiError | None = None
            try:
                await self._renew()
            except (LeadershipLostError, CredentialsRejectedError):
                raise
            except ApiError as error:
                failure = error  # also a denied one: roles may be replaced, and the Lease ends it
                log.warning("lease not renewed, retrying", error=str(error))
            if self._valid_until is not None and self._monotonic() >= self._valid_until:
                message = f"the Lease {self._name} could not be renewed for {LEASE_SECONDS} s"
                raise LeadershipLostError(message) from failure

    async def release(self) -> None:
        """Releases the Lease, so that a standby takes over immediately. Without a response it expires."""
        if not self.leads:
            return
        self._valid_until = None
        try:
            await self._write(holder="")
        except ApiError as error:
            log.warning("lease not released", error=str(error))

    def _monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def _try_to_acquire(self) -> bool:
        try:
            body = await self._api.get(f"{self._leases}/{self._name}")
        except NotFoundError:
            if self._observed is not None and self._observed.holder and not self._observed.expired(self._monotonic()):
                return self._held_by_another()  # it was deleted, and its holder may still write
            await self._take(self._create)
            return True
        self._observed = observe(self._observed, body, self._monotonic())
        if self._observed.holder not in ("", self._identity) and not self._observed.expired(self._monotonic()):
            return self._held_by_another()
        self._version = str(body["metadata"]["resourceVersion"])
        self._transitions = int((body.get("spec") or {}).get("leaseTransitions") or 0) + 1
        await self._take(lambda: self._write(holder=self._identity))
        return True

    async def _create(self) -> Json:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        return await self._api.create(self._leases, {**body, "spec": self._spec(self._identity)})

    async def _take(self, write: Callable[[], Awaitable[Json]]) -> None:
        sent = self._monotonic()
        self._acquired_at = timestamps.micros(self._clock.now())
        try:
            body = await write()
        except (UnavailableError, ConflictError, NotFoundError, CredentialsRejectedError):
            raise
        except ApiError as error:
            since = self._rejected_since = sent if self._rejected_since is None else self._rejected_since
            if sent - since < LIMIT_SECONDS:
                raise LeaseRejectedError(str(error), error.code) from error
            raise ApiError(f"{error}, for {LIMIT_SECONDS:.0f} s", error.code) from error
        self._version = str(body["metadata"]["resourceVersion"])
        self._valid_until = sent + LEASE_SECONDS
        self._forget_rejections()

    def _held_by_another(self) -> bool:
        """Returns False, as `_try_to_acquire` does: no write is due, so none is rejected."""
        self._forget_rejections()
        return False

    def _forget_rejections(self) -> None:
        self._rejected_since, self.rejection = None, ""

    async def _renew(self) -> None:
        sent = self._monotonic()
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                try:
                    body = await self._write(holder=self._identity)
                except NotFoundError:
                    body = await self._create()
        except TimeoutError as error:
            raise UnavailableError(f"no response within {WRITE_SECONDS:.0f} s") from error
        except ConflictError:
            await self._check_holder()
            raise
        self._version = str(body["metadata"]["resourceVersion"])
        self._valid_until = sent + LEASE_SECONDS

    async def _check_holder(self) -> None:
        body = await self._api.get(f"{self._leases}/{self._name}")
        holder = (body.get("spec") or {}).get("holderIdentity")
        if holder != self._identity:
            self._valid_until = None
            raise LeadershipLostError(f"the Lease {self._name} is held by {holder or 'no process'}")
        self._version = str(body["metadata"]["resourceVersion"])

    async def _write(self, *, holder: str) -> Json:
        body = {"metadata": {"resourceVersion": self._version}, "spec": self._spec(holder)}
        return await self._api.merge_patch(f"{self._leases}/{self._name}", body)

    def _spec(self, holder: str) -> dict[str, Any]:
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": self._acquired_at,
            "renewTime": timestamps.micros(self._clock.now()),
            "leaseTransitions": self._transitions,
        }
