"""A node of stand-ins with the real agent on it: the command as users run it, on the driver of its library path."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gpufleet_e2e.fakes.apiserver import ApiServer, serving
from gpufleet_e2e.fakes.kubelet import Kubelet
from gpufleet_e2e.fakes.process import ProcessSamples, scrape

RESOURCE = "gpufleet.dev/gpu"
START_SECONDS = 60.0
LOOK_SECONDS = 1.0
SCRAPE_SECONDS = 15.0


@dataclass(slots=True)
class Node:
    """The agent, and what it talks to."""

    server: ApiServer
    kubelet: Kubelet
    process: Process
    port: int
    scrapes: list[float] = field(default_factory=list)
    """Milliseconds each."""
    page: bytes = b""
    """As scraped last."""

    async def scrape(self) -> None:
        """Scrape once."""
        took, _, self.page = await scrape(self.port)
        self.scrapes.append(took)

    async def follow(self, seconds: float, told: Callable[[float, ProcessSamples], None]) -> ProcessSamples:
        """Look at the process each second and scrape every fifteen.

        Args:
            seconds: How long.
            told: Called after each look, with the seconds that have passed.
        """
        loop = asyncio.get_running_loop()
        course = ProcessSamples(self.process.pid)
        began = due = loop.time()
        while (now := loop.time()) < began + seconds:
            course.look(now)
            if now >= due:
                due += SCRAPE_SECONDS
                await self.scrape()
            passed = loop.time() - began
            told(passed, course)
            await asyncio.sleep(LOOK_SECONDS - passed % LOOK_SECONDS)
        course.look(loop.time())
        return course


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else gets before the agent listens on it, seconds from now.

    A port that is only looked up and let go may be anybody's by then: of who asks for any free one, or of a connection,
    even of one that asks whether the agent is ready, to itself. One that is bound isn't given to those, and who asks
    for it by its number may listen on it, as long as both allow that the address is reused.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@asynccontextmanager
async def running(
    folder: Path,
    name: str,
    held: Sequence[str],
    environment: Mapping[str, str],
    *flags: str,
    log: BinaryIO | None = None,
) -> AsyncIterator[Node]:
    """The agent, registered and published, with a pod on each of the devices held.

    Args:
        folder: For sockets and certificates; short enough for a socket's path.
        name: Of the node.
        held: UUIDs.
        environment: Beside PATH and the way to the apiserver.
        flags: More of the agent's.
        log: Where its log goes; None: to this process's stderr.

    Raises:
        RuntimeError: The agent ended.
        TimeoutError: It takes too long.
    """
    server = ApiServer(name)
    with reserved_port() as port, serving(folder, server) as kubeconfig:
        async with Kubelet(folder) as kubelet:
            for number, uuid in enumerate(held):
                kubelet.held["ml", f"train-{number}", "main"] = {RESOURCE: [uuid]}
            command = [str(Path(sys.executable).with_name("gpufleet-agent")), f"--node-name={name}"]
            command += [f"--device-plugin-dir={kubelet.device_plugins}", f"--listen=127.0.0.1:{port}"]
            command += [f"--pod-resources-socket={kubelet.pod_resources}", f"--state-dir={folder / 'state'}"]
            command += ["--log-level=warning", *flags]
            inherited = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
            process = await asyncio.create_subprocess_exec(*command, stderr=log, env={**inherited, **environment})
            try:
                node = Node(server, kubelet, process, port)
                await _until_ready(node)
                yield node
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()


async def _until_ready(node: Node) -> None:
    async with asyncio.timeout(START_SECONDS):
        while node.process.returncode is None:
            try:
                _, status, _ = await scrape(node.port, "/readyz")
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the agent ended with status {node.process.returncode}")
