"""Several detectors on Kubernetes: the manifests by its own schemas, and how they fit together."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services.cli import parse
from tests.deploy.dockerfile import read_stages
from tests.deploy.test_kubernetes import K8S, SERVICE_LINKS, VERSIONS, kustomization, named, resources

FOLDER = K8S / "shards"
STAGES = read_stages(FOLDER.parents[1] / "Dockerfile")
RESOURCES = resources(FOLDER)
BALANCER = (FOLDER / "haproxy.cfg").read_text()


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in RESOURCES if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


WORKLOADS = {
    "detector": one("StatefulSet", "splitcast-shard"),
    "balancer": one("Deployment", "splitcast-balancer"),
}


def pod(component: str) -> dict[str, Any]:
    template: dict[str, Any] = WORKLOADS[component]["spec"]["template"]
    return template["spec"]


def container(component: str) -> dict[str, Any]:
    (found,) = pod(component)["containers"]
    assert isinstance(found, dict)
    return found


def labels(component: str) -> dict[str, str]:
    found: dict[str, str] = WORKLOADS[component]["spec"]["template"]["metadata"]["labels"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES, ids=named)
def test_a_resource_follows_its_schema(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_puts_them_together(tmp_path):
    copied = shutil.copytree(FOLDER, tmp_path / "shards", ignore=shutil.ignore_patterns("secrets"))
    (copied / "secrets").mkdir()
    for generator in kustomization(FOLDER)["secretGenerator"]:
        for file in generator["files"]:
            (copied / file).write_text("secret")
    done = subprocess.run(["kubectl", "kustomize", copied], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    for resource in made:
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "splitcast"
    held = {each["metadata"]["name"] for each in made if each["kind"] in ("Secret", "ConfigMap")}
    for workload in (each for each in made if each["kind"] in ("Deployment", "StatefulSet")):
        for volume in workload["spec"]["template"]["spec"]["volumes"]:
            name = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
            assert name is None or name in held


def test_secrets_are_no_files_of_the_repository():
    files = [
        FOLDER / file for generator in kustomization(FOLDER)["secretGenerator"] for file in generator["files"]
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *files], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert sorted(ignored.stdout.split()) == sorted(map(str, files))


def test_a_shard_is_the_single_detector_but_for_what_balancing_needs(monkeypatch):
    (single,) = (each["spec"]["template"]["spec"] for each in resources(K8S) if each["kind"] == "Deployment")
    shard = pod("detector")
    assert {**shard, "containers": [], "topologySpreadConstraints": []} == {
        **single,
        "containers": [],
        "topologySpreadConstraints": [],
    }
    assert {**container("detector"), "args": []} == {**single["containers"][0], "args": []}
    for name, value in (STAGES["detector"].env | SERVICE_LINKS).items():
        monkeypatch.setenv(name, value)
    for entry in container("detector")["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    settings: Any = parse([*STAGES["detector"].entrypoint[1:], *container("detector")["args"]])[1]
    assert settings.address_rate >= 1000
    assert settings.stranger_rate >= 1000
    assert settings.max_per_address is None
    assert not settings.insecure


def test_the_balancers_know_each_pod_by_its_name():
    stateful = WORKLOADS["detector"]
    headless = one("Service", stateful["spec"]["serviceName"])
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["selector"].items() <= labels("detector").items()
    domain = f"{headless['metadata']['name']}.{kustomization(FOLDER)['namespace']}.svc.cluster.local"
    pods = {
        f"{stateful['metadata']['name']}-{number}.{domain}:8765"
        for number in range(stateful["spec"]["replicas"])
    }
    assert set(re.findall(r"^    server \w+ (\S+:8765) ", BALANCER, re.MULTILINE)) == pods
    assert all("ssl verify required" in line for line in BALANCER.splitlines() if "svc.cluster.local" in line)
    (certificate,) = set(re.findall(r"verifyhost (\S+)", BALANCER))
    assert certificate == one("Service", "splitcast")["metadata"]["name"]


def test_a_balancer_has_the_files_that_it_names_and_no_privileges():
    spec, outer = container("balancer"), pod("balancer")["securityContext"]
    (generator,) = (g for g in kustomization(FOLDER)["secretGenerator"] if g["name"] == "splitcast-balancer")
    files = {f"/etc/splitcast/{file.rpartition('/')[2]}" for file in generator["files"]}
    assert set(re.findall(r"/etc/splitcast/\S+", BALANCER)) == files
    assert "stats socket /tmp/" in BALANCER
    assert {mount["mountPath"] for mount in spec["volumeMounts"]} == {
        "/usr/local/etc/haproxy",
        "/etc/splitcast",
        "/tmp",  # noqa: S108 - what may be written to
    }
    assert outer["runAsNonRoot"]
    assert outer["fsGroup"] == outer["runAsUser"]
    assert spec["securityContext"]["readOnlyRootFilesystem"]
    assert spec["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    ports = {port["name"]: port["containerPort"] for port in spec["ports"]}
    assert f"bind :{ports['wss']} ssl" in BALANCER
    assert (
        f"bind :{ports['figures']}\n    monitor-uri {spec['readinessProbe']['httpGet']['path']}" in BALANCER
    )


def test_who_reaches_whom():
    """Cameras the balancers, these the detectors, and nobody else but Prometheus and who is named."""
    component = "app.kubernetes.io/component"

    def named_in(rules: list[dict[str, Any]], side: str) -> set[str]:
        return {
            who["podSelector"]["matchLabels"][component]
            for rule in rules
            for who in rule.get(side, [])
            if component in who.get("podSelector", {}).get("matchLabels", {})
        }

    policies = {
        each["spec"]["podSelector"]["matchLabels"][component]: each["spec"]
        for each in RESOURCES
        if each["kind"] == "NetworkPolicy"
    }
    assert policies.keys() == {"detector", "balancer", "camera"}
    assert named_in(policies["detector"]["ingress"], "from") == {"balancer"}
    assert named_in(policies["balancer"]["ingress"], "from") == {"camera"}
    assert named_in(policies["balancer"]["egress"], "to") == {"detector"}
    assert named_in(policies["camera"]["egress"], "to") == {"balancer"}
    assert one("Service", "splitcast")["spec"]["selector"].items() <= labels("balancer").items()
    for name in ("splitcast-shard", "splitcast-balancer"):
        budget = one("PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
