"""A node of fakes with the real agent, which uses the driver of its library path."""

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
AGENT_POD = ("gpufleet-system", "gpufleet-agent")
"""Namespace and name of the agent's pod."""
START_SECONDS = 60.0
SAMPLE_SECONDS = 1.0
SCRAPE_SECONDS = 15.0


@dataclass(slots=True)
class Node:
    """The agent and its fake peers."""

    server: ApiServer
    kubelet: Kubelet
    process: Process
    port: int
    scrapes: list[float] = field(default_factory=list)
    """Duration of each scrape in milliseconds."""
    page: bytes = b""
    """The last scraped page."""

    async def scrape(self) -> None:
        """Scrapes /metrics once."""
        took, _, self.page = await scrape(self.port)
        self.scrapes.append(took)

    async def follow(self, seconds: float, on_sample: Callable[[float, ProcessSamples], None]) -> ProcessSamples:
        """Samples the process each second and scrapes it every fifteen.

        Args:
            seconds: Duration.
            on_sample: Called after each sample, with the seconds that have passed.
        """
        loop = asyncio.get_running_loop()
        samples = ProcessSamples(self.process.pid)
        began = due = loop.time()
        while (now := loop.time()) < began + seconds:
            samples.take(now)
            if now >= due:
                due += SCRAPE_SECONDS
                await self.scrape()
            passed = loop.time() - began
            on_sample(passed, samples)
            await asyncio.sleep(SAMPLE_SECONDS - passed % SAMPLE_SECONDS)
        samples.take(loop.time())
        return samples


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserves a port of 127.0.0.1 until the agent listens on it, seconds later.

    A free port that is closed again may be taken by then: by another process that requests any free port, or by a
    connection, even by the readiness probe to the agent. A bound port is not given to those, but a process that
    requests it by number can listen on it, as long as both set SO_REUSEADDR.
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
    """Runs the agent until it is ready, with a pod on each held device, while the block runs.

    Args:
        folder: For sockets and certificates; short enough for a socket's path.
        name: Name of the node.
        held: UUIDs of held devices.
        environment: Variables in addition to PATH and the kubeconfig.
        flags: Additional flags of the agent.
        log: Its log file; None means this process's stderr.

    Raises:
        RuntimeError: The agent ended.
        TimeoutError: The agent is not ready in time.
    """
    server = ApiServer(name)
    with reserved_port() as port, serving(folder, server) as kubeconfig:
        async with Kubelet(folder) as kubelet:
            kubelet.held[(*AGENT_POD, "agent")] = {}
            for number, uuid in enumerate(held):
                kubelet.held["ml", f"train-{number}", "main"] = {RESOURCE: [uuid]}
            command = [str(Path(sys.executable).with_name("gpufleet-agent")), f"--node-name={name}"]
            command += [f"--device-plugin-dir={kubelet.device_plugins}", f"--listen=127.0.0.1:{port}"]
            command += [f"--pod-resources-socket={kubelet.pod_resources}", f"--state-dir={folder / 'state'}"]
            command += ["--log-level=warning", *flags]
            inherited = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
            inherited["POD_NAMESPACE"], inherited["POD_NAME"] = AGENT_POD
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
