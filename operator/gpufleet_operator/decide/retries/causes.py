"""Finds the properties that a rejection names: the node can accept the next pod only after one of them changes.

The words are those of kube-scheduler's plugins and of the kubelet's admission handlers. A rejection whose words name
nothing of a node, such as SysctlForbidden or a missing PersistentVolumeClaim, depends on the pod: neither a change of
the node nor another node helps.
"""

import re
from typing import Final

from gpufleet_operator.model.state_types import NodeProperty

_WORDS: Final = {
    NodeProperty.CAPACITY: (
        "insufficient",
        "outof",
        "too many pods",
        "requested:",
        "topologyaffinityerror",
        "free ports",
        "anti-affinity",
        "pod affinity rules",
        "topology spread",
        "max volume count",
    ),
    NodeProperty.DEVICES: ("no healthy devices", "allocate failed"),
    NodeProperty.TAINTS: ("taint", "were unschedulable", "nodeshutdown", "not ready"),
    NodeProperty.LABELS: ("volume node affinity", "persistentvolume's node affinity", "volume zone"),
}
_SELECTOR = re.compile(r"(?:(\d+) )?node\(s\) didn't match pod's node affinity/selector")
_NODES = re.compile(r"0/(\d+) nodes are available")


def node_properties(message: str) -> frozenset[NodeProperty]:
    """Returns the properties of the node that a rejection names."""
    text = message.lower()
    found = {name for name, words in _WORDS.items() if any(word in text for word in words)}
    if _rejects_labels(text):
        found.add(NodeProperty.LABELS)
    return frozenset(found)


def _rejects_labels(text: str) -> bool:
    """Returns True when the node's own labels do not match.

    A pinned pod matches one node, so kube-scheduler counts all others as not matching. A kubelet counts no nodes.
    """
    selector, nodes = _SELECTOR.search(text), _NODES.search(text)
    return selector is not None and (nodes is None or selector[1] == nodes[1])
