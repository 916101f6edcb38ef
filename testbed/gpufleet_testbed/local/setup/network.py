"""Connects this machine to the cluster's network namespace with one veth pair, and configures the cluster's side.

Everything else (bridges, pod interfaces, iptables rules, forwarding settings) exists only inside that namespace; the
kernel removes it and the pair with the namespace.
"""

import ipaddress
import json
from pathlib import Path
from typing import Any

from gpufleet_testbed.errors import ClusterError, ConflictError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.local.layout import Layout

_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    # Replies from a pod to a Service client on the same bridge must pass through iptables to be translated back.
    "net/bridge/bridge-nf-call-iptables": "1",
}


def connect(layout: Layout, pid: int, runner: Runner = run) -> None:
    """Creates the link between this machine and the namespace of process `pid`, with addresses and routes.

    Raises:
        ConflictError: Another cluster uses the link.
    """
    link = layout.link
    made = runner(["ip", "link", "add", link, "type", "veth", "peer", "name", link, "netns", str(pid)], check=False)
    if made.returncode != 0:
        if "File exists" in made.stderr:
            raise ConflictError(f"interface {link} exists: {_alias(link, runner) or 'not created by gpufleet'}")
        raise ClusterError(f"cannot create interface {link}: {made.stderr.strip()}")
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
    prefix = layout.network.prefixlen
    addresses = [layout.api_address, *(node.address for node in layout.node_layouts)]
    settings = " && ".join(f"echo {value} > /proc/sys/{name}" for name, value in _SETTINGS.items())
    runner([*inside, "sh", "-c", settings])
    runner(
        [*inside, "ip", "-batch", "-"],
        stdin="\n".join(
            [
                "link set lo up",
                *(f"address add {address}/24 dev {link}" for address in addresses),
                f"link set {link} up",
            ]
        ),
    )
    runner(["ip", "link", "set", link, "alias", alias_of(layout.root)])
    runner(
        ["ip", "-batch", "-"],
        stdin="\n".join(
            [
                f"address add {layout.host_address}/24 dev {link}",
                f"link set {link} up",
                f"route add {layout.network.network_address}/{prefix} via {layout.api_address} dev {link}",
            ]
        ),
    )


def disconnect(link: str, root: Path, runner: Runner = run) -> None:
    """Removes the link if it exists and belongs to the cluster in folder `root`."""
    if _alias(link, runner) == alias_of(root):
        # The kernel may be removing it at this moment, after the end of the namespace.
        runner(["ip", "link", "delete", link], check=False)


def alias_of(root: Path) -> str:
    """Returns the alias that marks the link of the cluster in folder `root`."""
    return f"gpufleet test bed in {root}"


def overlap(network: ipaddress.IPv4Network, routes: list[dict[str, Any]], link: str) -> Problem | None:
    """Returns a problem if the cluster's addresses are already in use.

    Args:
        network: The cluster's network.
        routes: The output of `ip -json -4 route show table all`.
        link: The cluster's own interface, which does not count.
    """
    for route in routes:
        destination = route.get("dst", "default")
        if destination == "default" or route.get("dev") == link:
            continue
        taken = ipaddress.ip_network(destination, strict=False)
        if taken.prefixlen > 0 and taken.overlaps(network):
            device = route.get("dev", "?")
            return Problem(
                f"the cluster's addresses {network} overlap {destination}, which this machine routes to {device}",
                "set GPUFLEET_CLUSTER_NETWORK to another private /16, for example 10.245.0.0/16",
            )
    return None


def _alias(link: str, runner: Runner) -> str | None:
    shown = runner(["ip", "-json", "link", "show", link], check=False)
    if shown.returncode != 0:
        return None
    alias: str | None = json.loads(shown.stdout)[0].get("ifalias")
    return alias
