"""Runs the command line in a pod."""

from gpufleet_e2e.support.api import Api, JsonObject, pods
from gpufleet_e2e.support.manifests import plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_testbed import PROJECT_IMAGE

RUN_SECONDS = 60


def run_in_pod(api: Api, namespace: str, name: str, *arguments: str, image: str = PROJECT_IMAGE) -> tuple[int, str]:
    """Runs `gpufleet` in a pod as the default ServiceAccount of a namespace.

    Returns:
        Its exit code, and what it wrote to stdout and stderr.
    """
    container = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["gpufleet", *arguments]}
    api.create(pods(namespace), plain_pod(name, containers=[container]))

    def ended() -> JsonObject:
        statuses = api.get(f"{pods(namespace)}/{name}")["status"].get("containerStatuses", [])
        assert statuses, "the pod has not started"
        assert "terminated" in statuses[0]["state"], statuses[0]["state"]
        found: JsonObject = statuses[0]["state"]["terminated"]
        return found

    code = eventually(ended, within=RUN_SECONDS)["exitCode"]
    text = api.text(f"{pods(namespace)}/{name}/log")
    print(f"gpufleet {' '.join(arguments)}: exit code {code}\n{text}")
    return code, text
