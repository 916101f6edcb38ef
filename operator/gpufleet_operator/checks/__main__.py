"""`python3 -m gpufleet_operator.checks installation|uninstallation`: hooks of the chart."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from lightkube.core.exceptions import ConfigError

from gpufleet_api.names import RESOURCE, WORKLOAD_LABEL
from gpufleet_operator.checks import installation, uninstallation
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, load_config
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, NotFoundError, UnavailableError
from gpufleet_operator.model.lenient_json import Json

_ADVICE = (
    "Nothing places, restarts or finishes them without the operator. Delete or suspend them and uninstall again, or "
    "uninstall with --no-hooks."
)

_REMOVAL_SECONDS = 60.0
"""Maximum wait for deletions that have begun. The hook's Job ends after twice this time."""


class CheckError(Exception):
    """A check failed for the reason in the message."""


async def check_installation(
    api: Api, resource: str, workload: Json, *, timeout_seconds: float, pause_seconds: float = 2.0
) -> None:
    """Waits for telemetry, a registered plugin and a workload that is Ready, which is deleted again.

    Raises:
        CheckError: One of them is missing after the timeout.
        ApiError: The workload cannot be created.
    """
    meta = workload["metadata"]
    path = paths.workload(meta["namespace"], meta["name"])

    async def telemetry() -> str:
        return installation.missing_telemetry(await _list(api, paths.TELEMETRIES))

    async def plugin() -> str:
        return installation.missing_plugin(await _list(api, paths.TELEMETRIES), await _list(api, paths.NODES), resource)

    async def ready() -> str:
        return installation.unconfirmed(await api.get(path))

    async def deleted() -> str:
        try:
            await api.delete(path, {"propagationPolicy": "Foreground"})
        except NotFoundError:
            return ""
        return "GPUWorkload of an earlier check is still being deleted"

    until = time.monotonic() + timeout_seconds
    for check, passed in ((telemetry, "telemetry is fresh"), (plugin, f"a kubelet offers {resource}")):
        await _wait(check, until, pause_seconds)
        _print(passed)
    await _wait(deleted, until, pause_seconds)
    await api.create(path.rpartition("/")[0], workload)
    try:
        await _wait(ready, until, pause_seconds)
        _print(installation.placement(await api.get(path)))
    finally:
        await api.delete(path, {"propagationPolicy": "Background"})


async def check_uninstallation(
    api: Api, keep: str = "", *, timeout_seconds: float = _REMOVAL_SECONDS, pause_seconds: float = 2.0
) -> None:
    """Checks that no work is left, and waits for deletions in progress.

    Args:
        api: The apiserver.
        keep: Command that makes helm forget the attempt, for the message.
        timeout_seconds: How long to wait.
        pause_seconds: Time between two lists.

    Raises:
        CheckError: GPUWorkloads are active, or pods wait for the operator.
    """

    async def left() -> str:
        try:
            workloads = await _list(api, paths.WORKLOADS)
        except NotFoundError:
            workloads = []  # the CRD was deleted before
        pods = await _list(api, f"{paths.PODS}?labelSelector={WORKLOAD_LABEL}")
        lines = uninstallation.left_behind(workloads, pods)
        if not lines:
            return ""
        advice = [_ADVICE, *([f"helm upgrades the release again after: {keep}"] if keep else [])]
        message = "\n".join([f"{len(lines)} still active:", *(f"  {line}" for line in lines), *advice])
        if uninstallation.is_temporary(workloads, pods):
            return message
        raise CheckError(message)

    await _wait(left, time.monotonic() + timeout_seconds, pause_seconds)
    _print("no GPUWorkload is active, and no pod waits for the operator")


async def _wait(problem: Callable[[], Awaitable[str]], until: float, pause_seconds: float) -> None:
    while True:
        try:
            reason = await problem()
        except UnavailableError as error:
            reason = f"the apiserver does not respond: {error}"
        if not reason:
            return
        if time.monotonic() > until:
            raise CheckError(f"timed out: {reason}")
        await asyncio.sleep(pause_seconds)


async def _list(api: Api, path: str) -> list[Json]:
    return list((await api.get(path)).get("items") or ())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(options: argparse.Namespace) -> None:
    api = Api.connect(load_config(), ServerClock())
    try:
        if options.check == "uninstallation":
            await check_uninstallation(api, options.keep)
        else:
            await check_installation(
                api, options.resource, json.loads(options.workload), timeout_seconds=options.timeout_seconds
            )
    finally:
        await api.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a check; returns the exit status: 1 when it fails."""
    parser = argparse.ArgumentParser(prog="python3 -m gpufleet_operator.checks", description="Check an installation.")
    checks = parser.add_subparsers(dest="check", required=True)
    remove = checks.add_parser(
        "uninstallation", help="fail while GPUWorkloads are active or pods wait for the operator"
    )
    remove.add_argument("--keep", default="", help="command to show that makes helm forget the attempt")
    install = checks.add_parser("installation", help="wait for telemetry, a registered plugin and one confirmed pod")
    install.add_argument("--resource", default=RESOURCE, help="extended resource of a whole device")
    install.add_argument("--workload", required=True, help="GPUWorkload to create and delete, as JSON")
    install.add_argument("--timeout-seconds", type=float, default=120, help="how long to wait (default: 120)")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except (CheckError, ApiError, ConfigError) as error:
        _print(f"check failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
