"""Checks of nodes: agents, telemetry, device plugins, drivers, taints and clocks."""

from collections.abc import Iterator
from typing import Final

from gpufleet_api.names import DRA_DRIVER, FORBIDDEN_RESOURCES
from gpufleet_cli.cluster.kinds import SLICES, TELEMETRY, WORKLOADS
from gpufleet_cli.doctor.facts import ClusterFacts, flag, name_of, pod_spec, tolerates
from gpufleet_cli.doctor.finding import Diagnosed
from gpufleet_cli.freshness import time_of, written_at
from gpufleet_cli.view.pod_view import pod_view
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text

_MAX_SKEW_SECONDS: Final = 10
_SCHEDULING: Final = ("NoSchedule", "NoExecute")
_OF_KUBERNETES: Final = "node.kubernetes.io/"


def agents(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Nodes with a GPU on which no agent is ready."""
    for name, _, evidence in facts.gpu_nodes():
        pods = [pod_view(pod) for pod in facts.agent_pods(name)]
        if any(pod.ready for pod in pods):
            continue
        if not pods:
            cause = f"no agent runs on the node, which has a GPU ({evidence})"
            cure = "check agent.nodeSelector, agent.tolerations and the taints of the node; kubectl describe daemonset"
            yield Diagnosed("AgentMissing", f"node/{name}", cause, cure)
            continue
        state = "; ".join(f"pod {pod.name}: {', '.join([pod.state, *pod.containers])}" for pod in pods)
        first = pods[0]
        if first.phase == "Pending":
            cure = (
                f"kubectl describe pod --namespace={first.namespace} {first.name}: its events show the cause, "
                f"such as a directory that the node does not have ({'; '.join(_drivers(facts))})"
            )
        else:
            cure = f"kubectl logs --namespace={first.namespace} {first.name}; its /readyz lists what is missing"
        yield Diagnosed("AgentNotReady", f"node/{name}", f"the agent is not ready ({state})", cure)


def telemetry(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Telemetry that is stale, invalid, or of a node that does not exist."""
    for name, gpus in sorted(facts.view.nodes.items()):
        about = f"gputelemetry/{name}"
        if name not in facts.nodes:
            cure = f"kubectl delete gputelemetry {name}, if the node does not come back"
            yield Diagnosed("NodeMissing", about, "there is no Node of this name", cure)
        elif gpus.state not in ("Ready", "NoDriver"):
            cause = f"{gpus.state}: {gpus.message}; no pod is placed on the node"
            cure = "see the agent of the node: kubectl logs (docs/operations/troubleshooting.md#telemetry-is-stale)"
            yield Diagnosed("TelemetryStale", about, cause, cure)


def driver(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Nodes with a GPU whose agent reaches no driver: no runtime handler, no CDI, or no driver."""
    evidence = {name: why for name, _, why in facts.gpu_nodes()}
    for name, gpus in sorted(facts.view.nodes.items()):
        if gpus.state != "NoDriver" or name not in evidence:
            continue
        used = _drivers(facts)
        how = f"; the agent uses {'; '.join(used)}" if used else ""
        cause = f"no GPU driver answers in the agent, and the node has a GPU ({evidence[name]}){how}"
        cure = (
            "install the driver on the node, or set platform, agent.runtimeClassName or agent.driver to where it is "
            "(docs/operations/platforms.md)"
        )
        yield Diagnosed("NoDriver", f"node/{name}", cause, cure)


def plugins(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Device plugins that are not registered, or offer another number of devices than the agent reports."""
    resource = facts.resource
    if any(flag(one, "--mig-strategy") == "mixed" for one in facts.agents):
        return  # devices are spread over several resources
    for name, gpus in sorted(facts.view.nodes.items()):
        node = facts.nodes.get(name)
        if node is None or gpus.state != "Ready" or not gpus.gpus:
            continue
        if facts.uses_dra(name):
            yield from _slices(facts, name, len(gpus.gpus))
            continue
        status = as_map(node.get("status"))
        offered = sum(gpu.healthy and not gpu.withheld for gpu in gpus.gpus)
        capacity, allocatable = (_count(status, key, resource) for key in ("capacity", "allocatable"))
        if capacity == 0:
            cause = f"the node offers no {resource}, and the agent reports {len(gpus.gpus)} GPUs: it is not registered"
            cure = "check agent.kubelet.devicePluginDir and the agent's log; gpufleet_agent_registered is 0"
            yield Diagnosed("PluginNotRegistered", f"node/{name}", cause, cure)
        elif allocatable != offered:
            cause = f"{allocatable} {resource} are allocatable, and the agent reports {offered} healthy GPUs"
            cure = "wait half a minute for the kubelet; if it remains, another plugin serves the resource: see the node"
            yield Diagnosed("AllocatableDiffers", f"node/{name}", cause, cure)


def _slices(facts: ClusterFacts, node: str, reported: int) -> Iterator[Diagnosed]:
    if not facts.known(SLICES) or facts.dra_driver != DRA_DRIVER:
        return
    if facts.published_devices(node) == 0:
        cause = f"no device is in a ResourceSlice of {DRA_DRIVER}, and the agent reports {reported} GPUs"
        cure = "see the agent's log, and kubectl get resourceslices"
        yield Diagnosed("PluginNotRegistered", f"node/{node}", cause, cure)


def second_plugins(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Nodes on which another device plugin offers the same GPUs."""
    foreign = tuple(pattern.rstrip("*") for pattern in FORBIDDEN_RESOURCES)
    for name, gpus in sorted(facts.view.nodes.items()):
        capacity = as_map(as_map(as_map(facts.nodes.get(name)).get("status")).get("capacity"))
        found = [k for k, v in capacity.items() if k.startswith(foreign) and k != facts.resource and str(v) != "0"]
        if gpus.gpus and found:
            cause = f"another device plugin offers {', '.join(sorted(found))}: both can give out the same GPU"
            cure = "turn it off on the node: for NVIDIA's, label the node nvidia.com/gpu.deploy.device-plugin=false"
            yield Diagnosed("SecondPlugin", f"node/{name}", cause, cure)


def taints(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Taints of nodes with a GPU that neither the operator nor any workload tolerates, or that keep the agent away."""
    of_workloads = [_tolerations(one) for one in facts.lists.of(WORKLOADS)]
    of_agents = [_tolerations(one) for one in facts.agents]
    for name, node, _ in facts.gpu_nodes():
        for taint in maps(as_map(node.get("spec")).get("taints")):
            key = text(taint.get("key"))
            if taint.get("effect") not in _SCHEDULING or key.startswith(_OF_KUBERNETES):
                continue
            shown = f"{key}={text(taint.get('value'))}:{text(taint.get('effect'))}"
            if not all(tolerates(one, taint) for one in of_agents):
                cure = "add it to agent.tolerations of the chart"
                yield Diagnosed("TaintNotTolerated", f"node/{name}", f"the agent does not tolerate {shown}", cure)
            if key not in facts.tolerated_taints and not any(tolerates(one, taint) for one in of_workloads):
                cause = f"no workload tolerates {shown}, so no pod is placed on the node's GPUs"
                cure = "add its key to operator.tolerateTaints, or a toleration to spec.template.spec.tolerations"
                yield Diagnosed("TaintNotTolerated", f"node/{name}", cause, cure)


def clocks(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Clocks that differ from the apiserver's: of this machine, and of nodes, whose writes have a time by each."""
    own = facts.own_skew_seconds
    if own is not None and abs(own) > _MAX_SKEW_SECONDS:
        cause = f"{abs(own):.0f} s {'ahead of' if own > 0 else 'behind'} the apiserver's: ages that are shown are wrong"
        yield Diagnosed("ClockSkew", "this machine", f"its clock is {cause}", "check NTP: timedatectl, chronyc")
    for one in facts.lists.of(TELEMETRY):
        recorded, observed = written_at(one), time_of(as_map(one.get("status")).get("observedAt"))
        if recorded is None or observed is None:
            continue
        skew = (observed - recorded).total_seconds()
        if abs(skew) > _MAX_SKEW_SECONDS:
            cause = f"the node's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the apiserver's"
            yield Diagnosed("ClockSkew", f"node/{name_of(one)}", cause, "check NTP on the node: timedatectl, chronyc")


def _tolerations(owner: Json) -> list[Json]:
    return list(maps(pod_spec(owner).get("tolerations")))


def _count(status: Json, key: str, resource: str) -> int:
    amount = str(as_map(status.get(key)).get(resource, "0"))
    return int(amount) if amount.isdigit() else 0


def _drivers(facts: ClusterFacts) -> list[str]:
    """Returns where the agents look for the driver, without repetition."""
    return list(dict.fromkeys(_driver(pod_spec(one)) for one in facts.agents))


def _driver(spec: Json) -> str:
    paths = {text(one.get("name")): text(as_map(one.get("hostPath")).get("path")) for one in maps(spec.get("volumes"))}
    runtime = text(spec.get("runtimeClassName"))
    if "driver" in paths:
        return f"the driver in {paths['driver']} of the node"
    if "driver-root" in paths:
        return f"the driver below {paths['driver-root']} of the node"
    if "host-usr" in paths:
        return "the driver below /usr of the node"
    by = f'RuntimeClass "{runtime}"' if runtime else "the default runtime"
    return f"volume mounts that {by} replaces" if "all-devices" in paths else by
