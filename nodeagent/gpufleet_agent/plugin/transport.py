"""Interface of the transports that give devices to containers: device plugin and DRA driver."""

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol


def check_kubelet_directory(directory: Path) -> None:
    """Raises NotADirectoryError if a directory of the kubelet does not exist."""
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} does not exist: is this a node with a kubelet?")


class DeviceTransport(Protocol):
    """Serves the devices of the node to the kubelet."""

    async def start(self) -> None:
        """Checks what must be in place.

        Raises:
            OSError: The kubelet's directory does not exist, or files cannot be read or written.
        """

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """Returns the coroutines that must run as long as the agent, by name.

        Args:
            ready: Returns when allocations can be served.
            beat: Returns the function that a loop of a name calls in each iteration.
        """

    def unregistered(self) -> list[str]:
        """Returns what the kubelet does not know yet, by name."""

    def withheld(self) -> dict[str, str]:
        """Returns, by UUID, why a device without a fault cannot be given to a container."""

    async def close(self) -> None:
        """Stops serving."""


class ServedByOtherDriver:
    """A transport that serves nothing: another DRA driver gives the devices of the node to claims."""

    async def start(self) -> None:
        """Has nothing to check."""

    def loops(
        self, ready: Callable[[], Awaitable[None]], beat: Callable[[str], Callable[[], None]]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """Returns none."""
        del ready, beat
        return {}

    def unregistered(self) -> list[str]:
        """Returns nothing: the other driver registers itself."""
        return []

    def withheld(self) -> dict[str, str]:
        """Returns nothing: the other driver does not report why it withholds a device."""
        return {}

    async def close(self) -> None:
        """Has nothing to stop."""
