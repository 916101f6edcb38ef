"""A cluster in memory whose apiserver answers late, with errors, or after other writers."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from gpufleet_api.names import REPLICA_LABEL
from gpufleet_operator.kube.errors import ApiError
from gpufleet_testing.operator.apiserver import Crash, Json
from gpufleet_testing.operator.cluster import FakeCluster

WRITES = (
    "create_pod",
    "create_service",
    "create_claim",
    "apply_service",
    "delete_claim",
    "patch_pod",
    "delete_pod",
    "evict_pod",
    "patch_telemetry",
    "apply_telemetry_status",
    "patch_node_status",
    "patch_workload_status",
    "delete_workload",
)
"""The methods of `KubeWriter` that a decision depends on."""

Write = Callable[..., Awaitable[Any]]


class InterceptedCluster(FakeCluster):
    """Calls `intercept` for each write of an operator."""

    def __init__(self, nodes: int = 2, devices: int = 2, *, dra: int = 0) -> None:
        super().__init__(nodes, devices, dra=dra)
        self.calls: Counter[str] = Counter()
        """By method."""
        for method in WRITES:
            setattr(self, method, self._intercepted(method, getattr(self, method)))

    def _intercepted(self, method: str, write: Write) -> Write:
        async def call(*args: object) -> Any:
            self.calls[method] += 1
            return await self.intercept(method, write, args)

        return call

    async def intercept(self, method: str, write: Write, args: tuple[Any, ...]) -> Any:
        """Sends a write; subclasses change when, and what is answered."""
        del method
        return await write(*args)


class FlakyCluster(InterceptedCluster):
    """Answers every second attempt at each write with an error.

    Args:
        error: Returns the error; None: this method does not fail.
        after: Whether the write is stored nevertheless.
    """

    def __init__(
        self,
        error: Callable[[str, Json | None], ApiError | None],
        *,
        after: bool = False,
        nodes: int = 2,
        devices: int = 3,
        dra: int = 0,
    ) -> None:
        super().__init__(nodes, devices, dra=dra)
        self._error, self._after = error, after
        self._attempts: Counter[tuple[str, str]] = Counter()
        self.failed: set[str] = set()
        """The methods that were answered with an error."""

    async def intercept(self, method: str, write: Write, args: tuple[Any, ...]) -> Any:
        about = identity(args)
        self._attempts[method, about] += 1
        error = self._error(method, self.current(method, about)) if self._attempts[method, about] % 2 else None
        if error is None:
            return await write(*args)
        self.failed.add(method)
        if self._after:
            await write(*args)
        raise error

    def current(self, method: str, about: str) -> Json | None:
        kind = {"patch_pod": "pods", "patch_telemetry": "telemetry"}.get(method)
        return self.objects.get((kind, about)) if kind else None


class LateCommitCluster(InterceptedCluster):
    """The process ends while one write is on its way, which is stored when `commit` is called.

    Args:
        method: Of that write.
        number: How many writes of this method come before it.
    """

    def __init__(self, method: str, number: int, *, nodes: int = 2, devices: int = 3, dra: int = 0) -> None:
        super().__init__(nodes, devices, dra=dra)
        self._method, self._number = method, number
        self.late: tuple[Write, tuple[Any, ...]] | None = None
        """The write that is on its way."""

    async def intercept(self, method: str, write: Write, args: tuple[Any, ...]) -> Any:
        if method == self._method and self.calls[method] == self._number + 1:
            self.late = write, args
            raise Crash
        return await write(*args)

    async def commit(self) -> None:
        if self.late is not None:
            (write, args), self.late = self.late, None
            with suppress(ApiError):
                await write(*args)


def identity(args: tuple[Any, ...]) -> str:
    """Returns the key of the object that a write is about; of a creation that of the replica: names are new."""
    if isinstance(args[0], str):
        return "/".join(arg for arg in args[:2] if isinstance(arg, str))
    meta = args[0]["metadata"]
    replica = meta.get("labels", {}).get(REPLICA_LABEL)
    owner = f"{meta['ownerReferences'][0]['uid']}/{replica}" if replica is not None else meta["name"]
    return f"{meta.get('namespace', '')}/{owner}"
