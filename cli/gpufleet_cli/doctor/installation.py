"""Checks of what the chart installs: CRDs, policies, operator, namespace and versions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gpufleet_api.crd import DEMAND as DEMAND_CRD
from gpufleet_api.crd import TELEMETRY as TELEMETRY_CRD
from gpufleet_api.crd import WORKLOAD as WORKLOAD_CRD
from gpufleet_api.names import VERSION
from gpufleet_cli.cluster.kinds import BINDINGS, CRDS, NAMESPACES, RUNTIME_CLASSES
from gpufleet_cli.doctor.facts import ClusterFacts, labels_of, name_of, namespace_of, pod_spec
from gpufleet_cli.doctor.finding import Diagnosed
from gpufleet_cli.view.pod_view import pod_view
from gpufleet_operator.model.lenient_json import Json, as_list, as_map, maps, number, text

_POLICIES: Final = ("assignments", "own-node", "pods")
_RESTRICTING: Final = ("baseline", "restricted")
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_VERSION: Final = "app.kubernetes.io/version"
_NAMED: Final = 3
"""Maximum number of fields that a cause names."""
_UPGRADE: Final = "upgrade the release, which upgrades the CRDs, or apply crds/*.yaml (docs/operations/upgrade.md)"


def crds(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """CRDs that are missing, or older or newer than this program."""
    installed = {name_of(crd): crd for crd in facts.lists.of(CRDS)}
    for definition in (WORKLOAD_CRD.definition(), TELEMETRY_CRD.definition(), DEMAND_CRD.definition()):
        name = name_of(definition)
        about = f"customresourcedefinition/{name}"
        if name not in installed:
            cure = "install the chart with crds.enabled, or apply crds/*.yaml (docs/operations/install.md)"
            yield Diagnosed("CRDMissing", about, "the CustomResourceDefinition is not installed", cure)
            continue
        ours, theirs = set(_fields(_schema(definition))), set(_fields(_schema(installed[name])))
        if missing := sorted(ours - theirs):
            cause = f"older than this program: it lacks {_some(missing)}, which the apiserver drops"
            yield Diagnosed("CRDOlder", about, cause, _UPGRADE)
        elif extra := sorted(theirs - ours):
            cause = f"newer than this program: it has {_some(extra)}"
            yield Diagnosed("CRDNewer", about, cause, "use the version of the program that the cluster has")


def policies(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Admission policies that are missing or not enforced."""
    if not (facts.operators or facts.agents):
        return  # nothing is installed, which other checks report
    bound = {
        text(as_map(one.get("spec")).get("policyName"))
        for one in facts.lists.of(BINDINGS)
        if "Deny" in as_list(as_map(one.get("spec")).get("validationActions"))
    }
    found = {name_of(policy) for policy in facts.policies}
    for suffix in _POLICIES:
        matching = [name for name in found if name.endswith(f"-{suffix}")]
        if not matching:
            cause = f"the policy ...-{suffix} is missing: every subject that may patch gputelemetries can assign GPUs"
            cure = "set policy.enabled of the chart to true"
            yield Diagnosed("PolicyMissing", f"validatingadmissionpolicy/{suffix}", cause, cure)
        for name in matching:
            if name not in bound:
                cause = "no ValidatingAdmissionPolicyBinding enforces it with Deny, so it rejects nothing"
                cure = "upgrade the release, which creates the binding again"
                yield Diagnosed("PolicyNotBound", f"validatingadmissionpolicy/{name}", cause, cure)


def operator(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """An operator that is missing, not ready, or behind."""
    if not facts.operators:
        cause = "no Deployment of the operator: nothing places workloads"
        cure = "install the chart (docs/operations/install.md)"
        yield Diagnosed("OperatorMissing", "deployment/gpufleet-operator", cause, cure)
        return
    for one in facts.operators:
        about = f"deployment/{namespace_of(one)}/{name_of(one)}"
        if number(as_map(one.get("status")).get("readyReplicas")) > 0:
            continue
        bodies = facts.pods_of(one)
        pods = [pod_view(pod) for pod in bodies]
        if not number(as_map(one.get("spec")).get("replicas", 1)):
            yield Diagnosed("OperatorNotReady", about, "it is scaled to 0", f"kubectl scale {_ref(one)} --replicas=1")
        elif not pods:
            cure = f"kubectl describe {_ref(one)}, and its ReplicaSet: quota, PodSecurity or a webhook rejects the pod"
            yield Diagnosed("OperatorNotReady", about, "it has no pod", cure)
        else:
            state = "; ".join(f"pod {pod.name}: {', '.join([pod.state, *pod.containers])}" for pod in pods)
            cause = f"no pod is ready, so no pass of the operator completed lately ({state})"
            if last := next(filter(None, map(_last_words, bodies)), ""):
                cause += f"; the last one ended with: {last}"
            cure = f"kubectl logs {_ref(one)}; its /readyz says what is missing"
            yield Diagnosed("OperatorNotReady", about, cause, cure)


def _last_words(pod: Json) -> str:
    """Returns the last line of the log of a container that failed; empty: none did."""
    for status in maps(as_map(pod.get("status")).get("containerStatuses")):
        for state in (as_map(status.get("state")), as_map(status.get("lastState"))):
            ended = as_map(state.get("terminated"))
            if number(ended.get("exitCode")):
                lines = reversed(text(ended.get("message")).split("\n"))
                return next((line.strip() for line in lines if line.strip()), "")
    return ""


def passes(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Workloads that a ready operator has not seen."""
    ready = any(number(as_map(one.get("status")).get("readyReplicas")) for one in facts.operators)
    behind = [one.full_name for one in facts.view.workloads.values() if not one.current]
    if ready and behind:
        cause = f"the operator has not seen the last change of {_some(sorted(behind))}"
        cure = "run gpufleet doctor again; if it remains: kubectl logs of the operator, which reports failed writes"
        yield Diagnosed("OperatorBehind", "gpuworkloads", cause, cure)


def pod_security(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Namespaces of agents whose Pod Security level rejects their pods."""
    levels = {name_of(one): text(labels_of(one).get(_ENFORCE)) for one in facts.lists.of(NAMESPACES)}
    for one in facts.agents:
        namespace = namespace_of(one)
        if levels.get(namespace) in _RESTRICTING:
            cause = f"{_ENFORCE}={levels[namespace]} rejects the agents' pods, which mount the kubelet's sockets"
            cure = f"kubectl label namespace {namespace} {_ENFORCE}=privileged --overwrite"
            yield Diagnosed("PodSecurityRejectsAgent", f"namespace/{namespace}", cause, cure)


def runtime_class(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """A RuntimeClass of the agents that does not exist, or that a node does not have."""
    handlers = {name_of(one): text(one.get("handler")) for one in facts.lists.of(RUNTIME_CLASSES)}
    for one in facts.agents:
        name = text(pod_spec(one).get("runtimeClassName"))
        if not name:
            continue
        if name not in handlers:
            cause = f'RuntimeClass "{name}" of the agents does not exist, so their pods are rejected'
            cure = "create it (NVIDIA GPU Operator and Container Toolkit do), or clear agent.runtimeClassName"
            yield Diagnosed("RuntimeHandlerMissing", f"daemonset/{namespace_of(one)}/{name_of(one)}", cause, cure)
            continue
        for node, body, _ in facts.gpu_nodes():
            offered = [text(entry.get("name")) for entry in maps(as_map(body.get("status")).get("runtimeHandlers"))]
            if offered and handlers[name] not in offered:
                cause = f'the container runtime has no handler "{handlers[name]}" of RuntimeClass "{name}"'
                cure = "configure it on the node: nvidia-ctk runtime configure, then restart the container runtime"
                yield Diagnosed("RuntimeHandlerMissing", f"node/{node}", cause, cure)


def versions(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Agents, operator and program of different versions."""
    found: dict[str, list[str]] = {facts.version: ["this program"]}
    for one in facts.operators:
        found.setdefault(text(labels_of(one).get(_VERSION)) or "unknown", []).append("the operator")
    for node, gpus in sorted(facts.view.nodes.items()):
        if gpus.agent_version:
            found.setdefault(gpus.agent_version, []).append(f"the agent on {node}")
    if len(found) > 1:
        parts = (f"{version}: {_some(users)}" for version, users in sorted(found.items()))
        cure = (
            "wait until a rollout ends (kubectl rollout status), or upgrade what is older (docs/operations/upgrade.md)"
        )
        yield Diagnosed("VersionsDiffer", "versions", "; ".join(parts), cure)


def _schema(crd: Mapping[str, Any]) -> Json:
    versions_ = maps(as_map(crd.get("spec")).get("versions"))
    served = next((one for one in versions_ if one.get("name") == VERSION), {})
    return as_map(as_map(served.get("schema")).get("openAPIV3Schema"))


def _fields(schema: Json, path: str = "") -> Iterator[str]:
    """Yields the paths of all fields."""
    for name, field in as_map(schema.get("properties")).items():
        at = f"{path}.{name}".lstrip(".")
        yield at
        yield from _fields(as_map(field), at)
    items = as_map(schema.get("items"))
    if items:
        yield from _fields(items, f"{path}[]")


def _ref(one: Json) -> str:
    return f"--namespace={namespace_of(one)} deployment/{name_of(one)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
