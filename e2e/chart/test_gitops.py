"""Kustomize, install.yaml and the examples for Argo CD and Flux."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet_e2e.support.chart import MUTATING, Chart, nested
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_testbed import Cluster, repository_root

ROOT = repository_root()
EXAMPLE = ROOT / "config" / "kustomize" / "example"
POLICIES = tuple(f"{kind}AdmissionPolic{end}" for kind in ("Validating", "Mutating") for end in ("y", "yBinding"))


def kustomize(cluster: Cluster, folder: Path) -> dict[str, Any]:
    text = cluster.kubectl("kustomize", str(folder)).stdout
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The example with the files that it copies."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / "base", tmp_path / "overlay"):
        shutil.copy(ROOT / "config" / "kustomize" / "kustomizeconfig.yaml", folder)
    shutil.copy(ROOT / "crds" / "kustomize" / "openapi.json", tmp_path / "overlay")
    return tmp_path / "overlay"


def test_overlay_patches_one_variable_and_follows_generated_names(cluster: Cluster, overlay: Path) -> None:
    found = kustomize(cluster, overlay)
    workload, config_map = found["GPUWorkload"], found["ConfigMap"]["metadata"]["name"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "train.py"], "the patch keeps the other fields"
    assert container["image"] == "registry.example.com/train:2"
    assert container["env"] == [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "SEED", "value": "7"}]
    assert container["envFrom"] == [{"configMapRef": {"name": config_map}}]
    assert config_map.startswith("dev-training-")
    assert workload["spec"]["template"]["metadata"]["labels"] == {"team": "a"}
    assert workload["spec"]["replicas"] == 4


def test_overlay_is_accepted_by_the_apiserver(fleet: Fleet, overlay: Path) -> None:
    text = fleet.cluster.kubectl("kustomize", str(overlay)).stdout.replace("namespace: team-a", "namespace: default")
    done = fleet.cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert "gpuworkload.gpufleet.dev/dev-train created (server dry run)" in done.stdout


@pytest.fixture(scope="module")
def manifests(cluster: Cluster) -> Path:
    """The folder that `make manifests` writes."""
    helm = f"HELM={cluster.program('helm')}"
    subprocess.run(["make", "--silent", "manifests", helm], cwd=ROOT, check=True, capture_output=True, timeout=60)
    return ROOT / "dist"


def test_install_yaml_is_the_chart_with_its_namespace(fleet: Fleet, chart: Chart, manifests: Path) -> None:
    found = [one for one in yaml.safe_load_all((manifests / "install.yaml").read_text()) if one]
    installed = {(one["kind"], one["metadata"]["name"]) for one in found}
    assert installed == chart.render().keys() | {("Namespace", "gpufleet-system")}
    images = kustomize(fleet.cluster, manifests / "kustomize")["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert [one["image"] for one in images] == ["registry.example.com/gpufleet-agent:0.1.0"]
    names = [one["metadata"]["name"] for one in yaml.safe_load_all((manifests / "crds.yaml").read_text())]
    assert names == ["gpudemands.gpufleet.dev", "gputelemetries.gpufleet.dev", "gpuworkloads.gpufleet.dev"]


def test_installed_policies_do_not_differ_from_the_rendered_ones(fleet: Fleet, chart: Chart) -> None:
    """Tools that compare without the apiserver's defaults would apply such objects again and again."""
    rendered = {key: one for key, one in chart.render(api=MUTATING).items() if key[0] in POLICIES}
    assert {kind for kind, _ in rendered} == set(POLICIES)
    names = [f"{kind.lower()}/{name}" for kind, name in rendered]
    stored = json.loads(fleet.cluster.kubectl("get", *names, "-o", "json").stdout)["items"]
    assert {(one["kind"], one["metadata"]["name"]): one["spec"] for one in stored} == {
        key: one["spec"] for key, one in rendered.items()
    }


def test_dry_run_apply_changes_nothing(fleet: Fleet) -> None:
    manifest = fleet.cluster.helm("get", "manifest", "gpufleet", "--namespace=gpufleet-system").stdout
    done = fleet.cluster.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout[:2000] + done.stderr[:500]


def test_examples_set_values_that_the_chart_accepts(chart: Chart) -> None:
    application_set = next(yaml.safe_load_all((ROOT / "config/argocd/applicationset.yaml").read_text()))
    (source,) = application_set["spec"]["template"]["spec"]["sources"]
    values = source["helm"]["valuesObject"]
    assert "gpufleet-platform" in values["platform"]
    assert chart.render({**values, "platform": "gke"})
    flux = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "config/flux/gpufleet.yaml").read_text())}
    release = flux["HelmRelease"]["spec"]
    assert release["dependsOn"] == [{"name": "kube-prometheus-stack"}]
    assert chart.render(nested(release["values"]))
    assert (ROOT / release["chart"]["spec"]["chart"]).is_dir()
