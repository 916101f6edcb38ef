"""Recorded facts of a running local cluster, and their comparison with a configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpufleet_testbed.config import ClusterConfig, Provider
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.processes.process_id import ProcessId

_COMPARED = ("kubernetes", "nodes", "node_status_seconds", "network", "component_memory_mib", "audit_policy")


@dataclass(frozen=True)
class State:
    """Facts of a cluster that is ready."""

    config: ClusterConfig
    binaries: Mapping[str, str]
    """Path of each binary by name."""
    images: Mapping[str, str]
    """Archive of each image on the nodes, by name."""
    owner: ProcessId | None
    """The process with which the cluster ends; None when it lives until `down`."""
    started: str
    """Time in UTC, RFC 3339."""

    def write(self, layout: Layout) -> None:
        """Writes the state file atomically."""
        scratch = layout.state.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self), indent=2) + "\n")
        scratch.rename(layout.state)

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """Reads the state file; None when no cluster is ready."""
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
    """Describes how the running cluster differs from the wanted one. Images do not count: they can be loaded."""
    found = []
    for name in _COMPARED:
        want, have = getattr(wanted, name), getattr(running.config, name)
        if want != have:
            found.append(f"{name} is {have}, not {want}")
    changed = sorted(name for name, path in binaries.items() if running.binaries.get(name) != path)
    if changed:
        found.append(f"different builds of {', '.join(changed)}")
    return found
