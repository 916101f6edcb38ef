"""Finds the pod of a process in its cgroups.

The kubelet puts the pod's UID into the path of its cgroup, in one of two forms:

    cgroupfs  /kubepods/burstable/pod6a9d8b1c-.../<container>
    systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6a9d8b1c_....slice/<container>.scope

A static pod's UID may be 32 digits without dashes. Version 1 has a line per controller, version 2 one line. The part
above differs (kind nests the kubelet's root in another cgroup), and a reader in a cgroup namespace sees paths that
begin with `/..`; neither matters here.
"""

import re

_POD = re.compile(
    r"(?:^|[/-])pod(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=/|$)",
    re.MULTILINE,
)


def pod_uids(cgroups: str) -> tuple[str, ...]:
    """Returns the UIDs of the pods that a process runs in, outermost first; several if clusters are nested.

    Args:
        cgroups: Content of `/proc/PID/cgroup`.
    """
    found = (match["uid"].replace("_", "-") for match in _POD.finditer(cgroups))
    return tuple(dict.fromkeys(found))
