"""Prepares claims: reads them, waits for obstacles to end, and writes their files.

An error is expensive: the kubelet retries only a minute or more later. So obstacles that may end by themselves are
waited for, for almost as long as the kubelet waits for the call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from gpufleet_agent.dra.claim_files import ClaimFiles
from gpufleet_agent.dra.claim_registry import ClaimRegistry
from gpufleet_agent.dra.devices import ClaimableGpu
from gpufleet_agent.dra.environment import claim_env
from gpufleet_agent.dra.obstacles import ObstacleInput, blocking, find_obstacle, prepared_devices
from gpufleet_agent.dra.prepared_claim import PreparedClaim
from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError
from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_agent.kube.resource_claims import AllocatedClaim
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.inject.device_files import DeviceFiles
from gpufleet_agent.podresources.holdings import OtherHolders
from gpufleet_agent.runtime.driver_thread import DriverThread

T = TypeVar("T")

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 40.0
"""The kubelet cancels the call after 45 s."""
RETRY_SECONDS = 0.25
"""Between two looks at an obstacle."""
REFRESH_SECONDS = 1.0
"""Between two reads of the reservations while a claim waits."""
FILES_SECONDS = 3.0
"""Timeout of the file system."""


class ClaimError(Exception):
    """The claim was not prepared, or not unprepared. The message goes into an event of its pod."""


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """A claim as the kubelet names it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ClaimPreparer:
    """Prepares and unprepares claims.

    Args:
        read: Reads a claim by namespace and name. Raises as `ClaimApi.get_claim`.
        telemetry: The reservations.
        gpus: Returns the devices of the node by name, without I/O.
        device_files: Finds device nodes; None: containers get none by CDI.
        files: The files of claims.
        registry: The prepared claims.
        holders: Returns who has devices in another way than by a claim of this driver, from memory.
        living: Returns which of these pods, by UID, have a process; None: processes cannot be seen.
        visible: See `claim_env`.
        patience_seconds: How long to wait for obstacles to end.
    """

    def __init__(
        self,
        *,
        read: Callable[[str, str], Awaitable[AllocatedClaim]],
        telemetry: TelemetryWatch,
        gpus: Callable[[], Mapping[str, ClaimableGpu]],
        device_files: DeviceFiles | None,
        files: ClaimFiles,
        registry: ClaimRegistry,
        holders: Callable[[], OtherHolders],
        living: Callable[[frozenset[str]], frozenset[str]] | None,
        visible: str | None,
        patience_seconds: float = PATIENCE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._read = read
        self._telemetry = telemetry
        self._gpus = gpus
        self._device_files = device_files
        self._files = files
        self._registry = registry
        self._holders = holders
        self._living = living
        self._visible = visible
        self._patience_seconds = patience_seconds
        self._retry_seconds = retry_seconds
        self._thread: DriverThread | None = None
        self._refreshed_at = float("-inf")
        """When the last successful read of the reservations began."""
        self._refreshing = asyncio.Lock()
        self._looks: set[asyncio.Task[None]] = set()
        """Finds processes of unprepared claims."""

    def deadline(self) -> float:
        """Returns the loop time until which a call that begins now may wait."""
        return asyncio.get_running_loop().time() + self._patience_seconds

    async def start(self) -> None:
        """Reads the checkpoints of claims that an earlier process prepared.

        Raises:
            OSError: They cannot be read.
        """
        self._registry.load((await self._on_disk(self._files.load)).values())

    async def close(self) -> None:
        """Stops the thread of the file system. The files stay, because containers may start again."""
        for task in self._looks:
            task.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        if self._thread is not None:
            await self._thread.stop()

    async def prepare(self, ref: ClaimRef, deadline: float) -> PreparedClaim:
        """Prepares a claim; a claim that is prepared already stays as it is.

        Args:
            ref: The claim.
            deadline: Loop time until which obstacles are waited for.

        Raises:
            ClaimError: The claim cannot be prepared.
        """
        known = self._registry.get(ref.uid)
        if known is not None:
            await self._retry(lambda: self._write_again(known), deadline)
            return known
        claim, _ = await asyncio.gather(
            self._retry(lambda: self._read_claim(ref), deadline),
            # The reservation was made before the claim, so a read that begins now has it.
            self._refresh(asyncio.get_running_loop().time()),
        )
        prepared = await self._retry(lambda: self._try_to_prepare(claim), deadline)
        log.info("claim prepared", claim=str(claim), uid=claim.uid, devices=[each.uuid for each in prepared.devices])
        return prepared

    async def unprepare(self, ref: ClaimRef) -> None:
        """Removes the files of a claim. Has no effect if it is not prepared.

        Raises:
            ClaimError: The files cannot be removed.
        """
        try:
            await self._on_disk(lambda: self._files.remove(ref.uid))
        except OSError as error:
            raise ClaimError(f"cannot remove the CDI file: {error}") from error
        known = self._registry.get(ref.uid)
        self._registry.end(ref.uid, processes_may_run=self._living is not None)
        log.info("claim unprepared", claim=str(ref), uid=ref.uid)
        if known is not None and self._living is not None:
            task = asyncio.create_task(self._forget_ended(known))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def restore(self, namespace: str, name: str) -> None:
        """Prepares a claim again that the kubelet lists, but whose files are lost.

        A failure is only logged: its containers run.
        """
        try:
            claim = await self._read(namespace, name)
            gpus = self._gpus()
            if not claim.devices or not claim.pods or any(each.device not in gpus for each in claim.devices):
                return
            if self._registry.get(claim.uid) is None and not self._registry.has_ended(claim.uid):
                prepared = self._prepared(claim, gpus)
                self._registry.add(prepared)
                try:
                    await self._write_again(prepared)
                except _RetryableError:
                    self._registry.forget(claim.uid)
                    raise
                log.info("claim restored", claim=str(claim), uid=claim.uid)
        except (KubeError, ObjectFormatError, _RetryableError) as error:
            log.warning("claim not restored", claim=f"{namespace}/{name}", error=str(error))

    async def _read_claim(self, ref: ClaimRef) -> AllocatedClaim:
        try:
            claim = await self._read(ref.namespace, ref.name)
        except ObjectNotFoundError as error:
            raise ClaimError(f"claim {ref} does not exist") from error
        except (KubeError, ObjectFormatError) as error:
            raise _RetryableError(str(error)) from error
        if claim.uid != ref.uid:
            raise ClaimError(f"claim {ref} has UID {claim.uid} now, not {ref.uid}")
        if not claim.devices:
            raise ClaimError(f"claim {ref} has no device of this node")
        return claim

    async def _try_to_prepare(self, claim: AllocatedClaim) -> PreparedClaim:
        await self._refresh(asyncio.get_running_loop().time() - REFRESH_SECONDS)
        missing_files = await self._missing_files()
        await self._forget_gone(claim)
        # From here to `add` nothing is awaited: two claims never find the same device free.
        gpus = self._gpus()
        node = ObstacleInput(
            gpus=gpus,
            assignments=self._telemetry.assignments,
            others=self._registry.others(claim.uid),
            holders=self._holders(),
            missing_files=missing_files,
        )
        obstacle = find_obstacle(claim, node)
        if obstacle is not None:
            raise (_RetryableError if obstacle.may_end else ClaimError)(obstacle.message)
        prepared = self._prepared(claim, gpus)
        self._registry.add(prepared)
        try:
            await self._write(prepared)
        except BaseException:  # also when cancelled: the claim has no files
            self._registry.forget(claim.uid)
            raise
        return prepared

    async def _refresh(self, since: float) -> None:
        """Reads the reservations, unless a read that began at `since` or later has succeeded: claims share reads."""
        async with self._refreshing:
            if self._refreshed_at >= since:
                return
            began = asyncio.get_running_loop().time()
            with suppress(KubeError, ObjectFormatError):  # the reservations as last read are used then
                await self._telemetry.refresh()
                self._refreshed_at = began

    def _prepared(self, claim: AllocatedClaim, gpus: Mapping[str, ClaimableGpu]) -> PreparedClaim:
        devices = prepared_devices(claim, gpus)
        env = claim_env(
            devices,
            claim.pod_uids,
            self._telemetry.assignments or (),
            {gpu.uuid: gpu.index for gpu in gpus.values()},
            visible=self._visible,
        )
        return PreparedClaim(
            namespace=claim.namespace, name=claim.name, uid=claim.uid, pods=claim.pods, devices=devices, env=env
        )

    async def _missing_files(self) -> dict[str, str]:
        files = self._device_files
        if files is None:
            return {}
        problem = "no device node"
        try:
            await files.prepare()
        except OSError as error:
            problem = f"device nodes not found: {error}"
        return {gpu.uuid: problem for gpu in self._gpus().values() if gpu.uuid not in files.ready}

    async def _forget_gone(self, claim: AllocatedClaim) -> None:
        """Removes claims that hold the same devices, but whose containers have ended."""
        if self._living is None:
            return
        others = {other.uid: other for other in self._registry.others(claim.uid)}
        blockers = sorted(blocking(claim, self._gpus(), others.values()))
        pod_uids = frozenset[str]().union(*(others[uid].pod_uids for uid in blockers))
        try:
            alive = await asyncio.to_thread(self._living, pod_uids) if pod_uids else frozenset[str]()
        except OSError as error:
            log.warning("processes not listed", error=str(error))
            return
        for uid in blockers:
            other = others[uid]
            runs = not alive.isdisjoint(other.pod_uids)
            if runs or (self._registry.get(uid) is not None and not await self._is_gone(other)):
                continue
            self._registry.forget(uid)
            with suppress(OSError):  # removed with the next claim that needs the device
                await self._on_disk(lambda uid=uid: self._files.remove(uid))  # type: ignore[misc] # bound per iteration
            log.info("claim without a process removed", claim=str(other), uid=uid)

    async def _forget_ended(self, claim: PreparedClaim) -> None:
        """Finds processes of a claim that was just unprepared, so that the next claim of its devices need not.

        Usually there are none: the kubelet unprepares a claim after the containers have ended.
        """
        assert self._living is not None  # noqa: S101 - see the caller
        try:
            alive = await asyncio.to_thread(self._living, claim.pod_uids)
        except OSError:  # the next claim of a device looks again
            return
        if alive.isdisjoint(claim.pod_uids):
            self._registry.forget_ended(claim.uid)

    async def _is_gone(self, claim: PreparedClaim) -> bool:
        """Returns whether the API no longer has the claim for any of its pods. Not if that is not known."""
        try:
            found = await self._read(claim.namespace, claim.name)
        except ObjectNotFoundError:
            return True
        except (KubeError, ObjectFormatError):
            return False
        return found.uid != claim.uid or not found.devices or found.pod_uids.isdisjoint(claim.pod_uids)

    async def _write_again(self, claim: PreparedClaim) -> None:
        await self._missing_files()  # finds the device nodes, which this process may not know yet
        await self._write(claim)

    async def _write(self, claim: PreparedClaim) -> None:
        files = self._device_files
        nodes = {} if files is None else dict(files.nodes)
        unknown = [] if files is None else [device.uuid for device in claim.devices if not nodes.get(device.uuid)]
        if unknown:
            # Without its nodes in the file, a container would start without the device.
            raise _RetryableError(f"device {unknown[0]}: no device node")
        try:
            await self._on_disk(lambda: self._files.write(claim, lambda uuid: nodes.get(uuid, ())))
        except OSError as error:
            raise _RetryableError(f"cannot write the CDI file: {error}") from error

    async def _on_disk(self, function: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = DriverThread("claim-files")
        try:
            async with asyncio.timeout(FILES_SECONDS):
                return await asyncio.shield(self._thread.submit(function))
        except TimeoutError as error:
            raise TimeoutError(f"the file system did not respond within {FILES_SECONDS:g} s") from error

    async def _retry(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Repeats an attempt until the deadline.

        Raises:
            ClaimError: What an attempt raised, or the last obstacle.
        """
        logged = ""
        while True:
            try:
                return await attempt()
            except _RetryableError as error:
                if asyncio.get_running_loop().time() + self._retry_seconds >= deadline:
                    raise ClaimError(str(error)) from error
                if str(error) != logged:
                    logged = str(error)
                    log.info("claim waits", reason=logged)
            await asyncio.sleep(self._retry_seconds)


class _RetryableError(Exception):
    """An obstacle that may end."""
