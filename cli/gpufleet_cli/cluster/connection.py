"""Cluster, namespace and user of a command, chosen by the same flags as in kubectl."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connection:
    """Flags of kubectl, with kubectl's defaults when they are absent."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False
    user: str | None = None
    groups: tuple[str, ...] = ()

    def arguments(self) -> Iterator[str]:
        """Yields the arguments of every kubectl command, without the namespace."""
        if self.kubeconfig:
            yield f"--kubeconfig={self.kubeconfig}"
        if self.context:
            yield f"--context={self.context}"
        if self.user:
            yield f"--as={self.user}"
        yield from (f"--as-group={group}" for group in self.groups)
