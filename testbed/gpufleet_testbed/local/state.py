"""What is written down about a running local cluster, and whether it is the one that somebody wants."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpufleet_testbed.config import ClusterConfig, Provider
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.processes.process_id import ProcessId

_COMPARED = ("nodes", "node_status_seconds", "network", "audit_policy")


@dataclass(frozen=True)
class State:
    """A cluster that is ready."""

    config: ClusterConfig
    binaries: Mapping[str, str]
    """Path of each binary that it runs."""
    images: Mapping[str, str]
    """Archive of each image on its nodes, by name."""
    owner: ProcessId | None
    """The process whose end ends the cluster; None when it lives until `down`."""
    started: str
    """Time in UTC, RFC 3339."""

    def write(self, layout: Layout) -> None:
        """Record it."""
        scratch = layout.state.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self), indent=2) + "\n")
        scratch.rename(layout.state)

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """The recorded state; None when there is no ready cluster."""
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        config = content.pop("config")
        owner = content.pop("owner")
        return cls(
            config=ClusterConfig(**{**config, "provider": Provider(config["provider"])}),
            owner=ProcessId(**owner) if owner else None,
            **content,
        )


def differences(wanted: ClusterConfig, binaries: Mapping[str, str], running: State) -> Sequence[str]:
    """In words, what keeps the running cluster from being the wanted one. Images don't: they can be loaded."""
    found = []
    for name in _COMPARED:
        want, have = getattr(wanted, name), getattr(running.config, name)
        if want != have:
            found.append(f"{name} is {have}, not {want}")
    changed = sorted(name for name, path in binaries.items() if running.binaries.get(name) != path)
    if changed:
        found.append(f"it runs other builds of {', '.join(changed)}")
    return found
