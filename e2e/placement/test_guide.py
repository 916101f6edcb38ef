"""The guide for machine learning: its manifests run on the cluster, and its commands do what it says."""

import re
import shlex
from typing import Any

import yaml

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IMAGE, SLEEP
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import repository_root

JsonObject = dict[str, Any]

GUIDE = (repository_root() / "docs/guides/machine-learning.md").read_text(encoding="utf-8")
ENDS = "finetune"
SOON_SECONDS = 40


def test_manifests_of_the_guide_run_and_its_commands_work(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: images and commands are replaced, the rest is the guide's."""
    workloads = [runnable(yaml.safe_load(text)) for text in re.findall(r"<<'END'\n(.*?)\nEND\n", GUIDE, re.DOTALL)]
    names = [workload["metadata"]["name"] for workload in workloads]
    assert names == ["finetune", "train", "pretrain", "chat", "embed", "notebook"]
    # The last one is applied later: in one pass with it, a replica of `embed` may share its GPU instead.
    for group in (workloads[:-1], workloads[-1:]):
        namespace.apply(*group)
        namespace.verify(*(one["metadata"]["name"] for one in group if one["metadata"]["name"] != ENDS))
    namespace.wait_condition(ENDS, "Complete", "True", "Succeeded", within=SOON_SECONDS)

    cli = CommandLine(fleet.cluster)
    used = commands()
    assert len(used) == 8, used
    for command in used:
        done = cli.kubectl(*shlex.split(command)[1:], f"--namespace={namespace.name}")
        assert done.code == 0, f"{command}: {done.out}{done.err}"
    namespace.wait_ready("notebook", within=SOON_SECONDS)
    assert namespace.workload("chat")["spec"]["replicas"] == 3
    eventually(lambda: _same_gpu(namespace), within=SOON_SECONDS)


def commands() -> list[str]:
    """Returns the commands of the guide but for those that apply a manifest, in its order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [line for line in lines if line.startswith("kubectl ") and "<<" not in line]


def runnable(workload: JsonObject) -> JsonObject:
    """Replaces what only a real image has."""
    spec = workload["spec"]["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 1
    (container,) = spec["containers"]
    for field in ("args", "readinessProbe"):
        container.pop(field, None)
    command = ["true"] if workload["metadata"]["name"] == ENDS else list(SLEEP)
    container |= {"image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command}
    return workload


def _same_gpu(namespace: TestNamespace) -> None:
    """Checks that the replicas with promises share a GPU, as the guide says."""
    devices = {tuple(p["devices"]) for p in namespace.workload("embed")["status"]["placements"]}
    assert len(devices) == 1, devices
