"""Turns what kubectl prints on a failure into a message that says what to do."""

import re
from difflib import get_close_matches
from typing import Final

from gpufleet_api.names import GROUP
from gpufleet_cli.errors import ClusterError, ForbiddenError, MissingObjectError

NO_KUBECTL: Final = (
    "kubectl is not in PATH, and gpufleet reaches clusters through it: install it "
    "(https://kubernetes.io/docs/tasks/tools/), or use --from FILE for saved objects"
)
NO_KUBECTL_IN_POD: Final = (
    "kubectl is not in PATH: without it, gpufleet reads the cluster of this pod, and changes nothing; install it in "
    "the image for commands that change objects or print logs, and for --kubeconfig and --context"
)
_UNREACHABLE: Final = (
    "connection to the server",
    "Unable to connect to the server",
    "connection refused",
    "no such host",
    "i/o timeout",
    "context deadline exceeded",
    "no configuration has been provided",
)
_OTHER_CLUSTER: Final = "set --kubeconfig or --context, or use --from FILE for saved objects"


def failure(stderr: str, path: str) -> ClusterError:
    """Returns the exception for a failed kubectl command.

    Args:
        stderr: What kubectl printed.
        path: The path or the command that failed.
    """
    text = _last_line(stderr)
    if "(Forbidden)" in stderr or "is forbidden:" in stderr:
        if " cannot " not in text:
            return ForbiddenError(text)
        return ForbiddenError(f"{text}: ask an administrator of the cluster for this permission", by_rbac=True)
    if "(Unauthorized)" in stderr or "must be logged in" in stderr:
        return ClusterError(f"{text}: the credentials of the kubeconfig are not accepted; log in again")
    if "(NotFound)" in stderr or "doesn't have a resource type" in stderr:
        return _missing(text, path)
    if any(phrase in stderr for phrase in _UNREACHABLE):
        return ClusterError(f"no cluster responds: {text}: {_OTHER_CLUSTER}")
    return ClusterError(f"kubectl: {text or 'failed without a message'}")


def unknown_context(name: str, known: list[str]) -> ClusterError:
    """Returns the exception for a context that the kubeconfig does not have."""
    return MissingObjectError(f'context "{name}" not found{near(name, known)}')


def near(name: str, known: list[str]) -> str:
    """Returns names that are close to `name`, or some of those that exist, as the end of a message."""
    if not known:
        return ""
    distinct = list(dict.fromkeys(known))
    close = get_close_matches(name, distinct, n=3, cutoff=0.5)
    if close:
        return f": did you mean {', '.join(close)}?"
    shown = sorted(distinct)[:5]
    return f": there is {', '.join(shown)}{', ...' if len(distinct) > len(shown) else ''}"


def _missing(text: str, path: str) -> ClusterError:
    if GROUP in path and "the server could not find the requested resource" in text:
        return MissingObjectError(
            f"the CustomResourceDefinitions of {GROUP} are not installed in this cluster: install the chart "
            f"(docs/operations/install.md), or {_OTHER_CLUSTER}"
        )
    return MissingObjectError(text)


def _last_line(stderr: str) -> str:
    """Returns the error itself; lines before it are of client-go's log, such as `E1128 22:10:53.0 memcache.go:265]`."""
    lines = [line for line in stderr.strip().splitlines() if line and not re.match(r"[EWI]\d{4} ", line)]
    text = lines[-1] if lines else stderr.strip()
    return re.sub(r"^(error|Error from server(?: \(\w+\))?): ", "", text).rstrip(".")
