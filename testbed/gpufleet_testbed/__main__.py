"""The command line of the test bed: `python -m gpufleet_testbed --help`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gpufleet_testbed import lifecycle
from gpufleet_testbed.config import DEFAULT_NAME, ClusterConfig, Provider
from gpufleet_testbed.errors import ClusterError, HostError
from gpufleet_testbed.host.command import search_path
from gpufleet_testbed.shell import exports
from gpufleet_testbed.versions import DEFAULT_KUBERNETES, KUBERNETES_RELEASES

_EXIT_HOST = 2
_EXIT_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m gpufleet_testbed",
        description="Runs a real Kubernetes cluster on the local machine, for tests and the demo.",
        epilog="Exit status: 0 success, 1 failure, 2 the machine lacks something (the message names the fix). "
        "Environment: GPUFLEET_CACHE, GPUFLEET_CLUSTER_ASSETS, GPUFLEET_CLUSTER_KUBERNETES, "
        "GPUFLEET_CLUSTER_PROVIDER, GPUFLEET_CLUSTER_NETWORK, GPUFLEET_KIND_NODE_IMAGE; "
        "see testbed/README.md.",
    )
    top.add_argument(
        "--name",
        default=DEFAULT_NAME,
        help="name of the cluster, before COMMAND (default %(default)s)",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "start a cluster, or take over a matching one that runs"
    up = commands.add_parser("up", help=text, description=f"{text[0].upper()}{text[1:]}.")
    build = commands.add_parser("build", help="build everything that `up` needs, without starting anything")
    for command, without_image in (
        (up, "do not build and load the project's image"),
        (build, "do not build the project's image"),
    ):
        command.add_argument("--nodes", type=int, default=2, help="number of nodes (default %(default)s)")
        command.add_argument(
            "--provider",
            type=Provider,
            choices=list(Provider),
            help="what runs the nodes: processes of this machine (local, the default), or Docker (kind)",
        )
        command.add_argument(
            "--kubernetes",
            choices=list(KUBERNETES_RELEASES),
            help=f"minor version of Kubernetes (default $GPUFLEET_CLUSTER_KUBERNETES, or {DEFAULT_KUBERNETES})",
        )
        command.add_argument("--no-image", action="store_true", help=without_image)
    commands.add_parser("down", help="stop the cluster and remove everything that it created")
    commands.add_parser("status", help="show what runs; exit status 1 if nothing runs or something is broken")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    execute = commands.add_parser("exec", help="run a command inside a node", usage="%(prog)s NODE -- CMD ...")
    execute.add_argument("node", metavar="NODE", help="name of the node")
    execute.add_argument("args", nargs="+", metavar="CMD", help="command and its arguments")
    load = commands.add_parser("load", help="load an image archive on every node")
    load.add_argument("archive", type=Path, metavar="FILE", help="OCI or Docker archive")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = parser().parse_args(argv)
    try:
        return _run(options)
    except HostError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return _EXIT_HOST
    except (ClusterError, ValueError, TimeoutError, KeyError, FileNotFoundError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing is left running", file=sys.stderr)
        return _EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            cluster = lifecycle.up(_config(options), detach=True)
            print("\n".join(exports(cluster)))
        case "build":
            lifecycle.build(_config(options))
        case "down":
            running = _is_running(options.name)
            lifecycle.down(options.name)  # also removes what a dead cluster left
            print("cluster removed" if running else "no cluster is running")
        case "status":
            return _status(options.name)
        case "kubeconfig":
            print(lifecycle.attach(options.name).kubeconfig)
        case "exec":
            command = lifecycle.attach(options.name).node(options.node).command(options.args)
            os.execvpe(command[0], command, {**os.environ, "PATH": search_path()})  # noqa: S606 - no shell is wanted
        case "load":
            lifecycle.attach(options.name).load_image(options.archive.resolve(strict=True))
    return 0


def _is_running(name: str) -> bool:
    try:
        return lifecycle.status(name) is not None
    except (ClusterError, TimeoutError, OSError):  # broken: it is removed like any other
        return True


def _status(name: str) -> int:
    found = lifecycle.status(name)
    print(found or "no cluster is running")
    return 0 if found and found.healthy else 1


def _config(options: argparse.Namespace) -> ClusterConfig:
    chosen = {name: value for name in ("provider", "kubernetes") if (value := getattr(options, name))}
    return ClusterConfig.from_environment(
        name=options.name, nodes=options.nodes, project_image=not options.no_image, **chosen
    )


if __name__ == "__main__":
    sys.exit(main())
