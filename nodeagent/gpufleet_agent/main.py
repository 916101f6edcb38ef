"""The command `gpufleet-agent`: one process per GPU node."""

import asyncio
import random
import signal
import sys
from collections.abc import Callable, Sequence

import structlog

from gpufleet_agent.agent import Agent, build_agent
from gpufleet_agent.devices.base import Hardware
from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.lightkube_api import LightkubeTelemetryApi
from gpufleet_agent.resources import MigStrategy
from gpufleet_agent.runtime.lifecycle import ComponentError
from gpufleet_agent.sampling.timing import Timing
from gpufleet_agent.settings import AgentSettings, parse
from gpufleet_common.deep_documents import accept_deep_documents
from gpufleet_common.logs import configure
from gpufleet_common.trim_memory import SETTLED_SECONDS, release_file_pages, share_one_heap
from gpufleet_common.units import BYTES_PER_MIB

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the agent until SIGTERM or SIGINT; returns the exit status: 0 after a signal, 1 after an error."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    accept_deep_documents()
    configure(settings.log_level, settings.log_format)
    share_one_heap()
    release_file_pages()  # used while loading libraries; repeated when the agent has settled
    return asyncio.run(serve(lambda: make_agent(settings)))


def make_agent(settings: AgentSettings) -> Agent:
    """Builds the agent for this node.

    Raises:
        KubeError: There is no configuration of the apiserver.
        OSError: The recording cannot be read or written.
        ValueError: The file is not a recording.
    """
    rng = random.Random()  # noqa: S311 - jitter
    return build_agent(settings, make_hardware(settings), LightkubeTelemetryApi(settings.node_name, rng), rng)


def make_hardware(settings: AgentSettings) -> Hardware:
    """Builds the hardware that the settings name, recorded if they ask for it. Raises as `make_agent`.

    Imports only the implementation in use.
    """
    hardware: Hardware
    if settings.recording is not None:
        from gpufleet_agent.devices.recording.player import load  # noqa: PLC0415 - see above

        hardware = load(settings.recording)
    else:
        from gpufleet_agent.devices.nvml import NvmlHardware  # noqa: PLC0415 - see above

        hardware = NvmlHardware(
            partitions=settings.mig_strategy is not MigStrategy.NONE,
            seldom_seconds=Timing().slow,
            xids=settings.xids,
            library_root=settings.driver_library_root,
        )
    if settings.record is not None:
        from gpufleet_agent.devices.recording.writer import RecordingWriter  # noqa: PLC0415 - see above

        hardware = RecordingWriter(hardware, settings.record, max_bytes=settings.record_max_mib * BYTES_PER_MIB)
    return hardware


async def serve(make: Callable[[], Agent]) -> int:
    """Runs an agent and logs its errors; returns the exit status."""
    try:
        agent = asyncio.create_task(make().run(), name="agent")
    except (KubeError, ValueError, OSError) as error:
        log.error("agent not started", error=_text(error))  # noqa: TRY400 - the message is enough, without a traceback
        return 1
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        # Handled once: a second signal gets Python's default handling and ends the process immediately.
        loop.add_signal_handler(number, _stop, loop, agent)
    settled = loop.call_later(SETTLED_SECONDS, release_file_pages)
    try:
        await agent
    except asyncio.CancelledError:
        log.info("agent stopped")
        return 0
    except ComponentError as error:
        log.error("agent failed", error=str(error), exc_info=error.__cause__)  # noqa: TRY400 - with the cause's traceback
        return 1
    finally:
        settled.cancel()
        _restore(loop)
    return 0


def _text(error: Exception) -> str:
    """Returns the error's message; that of a file is its path and the reason, without the error's number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _stop(loop: asyncio.AbstractEventLoop, agent: "asyncio.Task[None]") -> None:
    _restore(loop)
    agent.cancel()


def _restore(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)


if __name__ == "__main__":
    sys.exit(main())
