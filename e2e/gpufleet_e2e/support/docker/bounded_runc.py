"""runc on a machine that lacks a capability: a privileged container gets those that there are.

Docker Engine 20.10 gives a privileged container every capability that the kernel knows. Where the machine itself, a
container or a virtual machine, lacks one of them (often SYS_RESOURCE), runc cannot start it.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""In the order of their numbers in linux/capability.h."""


def missing(status: str) -> set[str]:
    """Returns the capabilities that the bounding set of /proc/self/status lacks."""
    (bounding,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:"))
    return {f"CAP_{name}" for number, name in enumerate(_NAMES) if not int(bounding, 16) >> number & 1}


def without(spec: dict[str, Any], lacking: set[str]) -> dict[str, Any]:
    """Returns the configuration of a container or of a process without these capabilities."""
    process = spec.get("process", spec)
    sets = {
        name: [one for one in found if one not in lacking] for name, found in process.get("capabilities", {}).items()
    }
    bounded = {**process, "capabilities": sets}
    return {**spec, "process": bounded} if "process" in spec else bounded


def specification(arguments: Sequence[str]) -> Path | None:
    """Returns the file that says what runc starts; None for another command."""
    for option, name in (("--bundle", "config.json"), ("--process", "")):
        if option in arguments:
            return Path(arguments[arguments.index(option) + 1]) / name
    return None


def main() -> None:
    """Runs runc in place of this process."""
    if path := specification(sys.argv[1:]):
        lacking = missing(Path("/proc/self/status").read_text(encoding="utf-8"))
        path.write_text(json.dumps(without(json.loads(path.read_text(encoding="utf-8")), lacking)), encoding="utf-8")
    os.execvp("runc", ["runc", *sys.argv[1:]])  # noqa: S606 - no shell is wanted; the engine's PATH finds its own


if __name__ == "__main__":
    main()
