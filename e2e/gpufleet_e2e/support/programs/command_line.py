"""Runs `kubectl gpufleet` as a user does: kubectl finds the plugin in PATH."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_testbed import Cluster

TIMEOUT_SECONDS = 90


@dataclass(frozen=True)
class Printed:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """The plugin on a cluster."""

    cluster: Cluster

    def run(self, *arguments: object, stdin: str | None = None) -> Printed:
        """Runs `kubectl gpufleet`."""
        return self.kubectl("gpufleet", *arguments, stdin=stdin)

    def kubectl(self, *arguments: object, stdin: str | None = None) -> Printed:
        """Runs kubectl with the plugin in PATH."""
        command = [str(self.cluster.program("kubectl")), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
            input=stdin,
            timeout=TIMEOUT_SECONDS,
        )
        return Printed(done.returncode, done.stdout, done.stderr)

    def cpu_seconds(self, *arguments: object) -> float:
        """Runs `kubectl gpufleet`, and returns the processor time of all its processes."""
        script = "TIMEFORMAT='%U %S'; time kubectl gpufleet \"$@\" >/dev/null"
        done = subprocess.run(
            ["bash", "-c", script, "bash", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
            env=self.environment(),
            timeout=TIMEOUT_SECONDS,
        )
        return sum(map(float, done.stderr.splitlines()[-1].split()))

    def environment(self) -> dict[str, str]:
        """Returns the environment of a shell with kubectl, the plugin and helm in PATH."""
        folders = (Path(sys.executable).parent, *(self.cluster.program(name).parent for name in ("kubectl", "helm")))
        path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        # Other tests of the process may have set a width; without it, tables are as wide as they need.
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return {**kept, "PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig), "NO_PROXY": "*"}
