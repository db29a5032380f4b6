"""The manifests, by Kubernetes' own schemas, and by what the services they start make of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services.cli import parse
from tests.deploy.dockerfile import read_stages
from tests.paths import DEPLOY

K8S = DEPLOY / "k8s"
FOLDERS = [K8S, K8S / "camera"]
STAGES = read_stages(DEPLOY / "Dockerfile")
VERSIONS = ["1.29", "1.37"]  # of Kubernetes: the oldest and the newest that it is tried with
# What Kubernetes sets in every pod beside Services of these names, where nobody forbids it.
SERVICE_LINKS = {
    "SPLITCAST_SERVICE_HOST": "10.0.0.7",
    "SPLITCAST_SERVICE_PORT": "8765",
    "SPLITCAST_SERVICE_PORT_WSS": "8765",
    "SPLITCAST_PORT": "tcp://10.0.0.7:8765",
    "SPLITCAST_PORT_8765_TCP": "tcp://10.0.0.7:8765",
    "SPLITCAST_PORT_8765_TCP_PROTO": "tcp",
    "SPLITCAST_PORT_8765_TCP_PORT": "8765",
    "SPLITCAST_PORT_8765_TCP_ADDR": "10.0.0.7",
    "SPLITCAST_METRICS_PORT": "tcp://10.0.0.8:8766",
}


def kustomization(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return document


def resources(folder: Path) -> list[dict[str, Any]]:
    files = [folder / name for name in kustomization(folder)["resources"]]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


RESOURCES = [resource for folder in FOLDERS for resource in resources(folder)]
KNOWN = [
    resource for resource in RESOURCES if "coreos" not in resource["apiVersion"]
]  # the others are an operator's


def one(kind: str, name: str | None = None) -> dict[str, Any]:
    """The only resource of that kind, or of that kind and name."""
    (found,) = (
        each for each in RESOURCES if each["kind"] == kind and name in (None, each["metadata"]["name"])
    )
    return found


WORKLOADS = {"detector": one("Deployment"), "camera": one("DaemonSet")}


def pod(service: str) -> dict[str, Any]:
    template: dict[str, Any] = WORKLOADS[service]["spec"]["template"]
    return template["spec"]


def container(service: str) -> dict[str, Any]:
    (found,) = pod(service)["containers"]
    assert isinstance(found, dict)
    return found


def selects(selector: dict[str, str], service: str) -> bool:
    return selector.items() <= WORKLOADS[service]["spec"]["template"]["metadata"]["labels"].items()


def named(resource: dict[str, Any]) -> str:
    return f"{resource['kind']} {resource['metadata']['name']}"


# --- what Kubernetes takes ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", KNOWN, ids=named)
def test_a_resource_follows_its_schema(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_puts_them_together(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "k8s", ignore=shutil.ignore_patterns("secrets"))
    (copied / "secrets").mkdir()
    for generator in kustomization(folder)["secretGenerator"]:
        for file in generator["files"]:
            (copied / file.rpartition("=")[2]).write_text("secret")
    done = subprocess.run(["kubectl", "kustomize", copied], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    for resource in made:
        if "coreos" not in resource["apiVersion"]:
            kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
            assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "splitcast"
    (template,) = (
        each["spec"]["template"]["spec"] for each in made if each["kind"] in ("Deployment", "DaemonSet")
    )
    secrets = {each["metadata"]["name"] for each in made if each["kind"] == "Secret"}
    used = {volume["secret"]["secretName"] for volume in template["volumes"] if "secret" in volume}
    assert used <= secrets  # by the name that changes with what they hold


def test_secrets_are_no_files_of_the_repository():
    files = [
        (folder / file.rpartition("=")[2]).relative_to(DEPLOY.parent)
        for folder in FOLDERS
        for generator in kustomization(folder)["secretGenerator"]
        for file in generator["files"]
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *files],
        cwd=DEPLOY.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(ignored.stdout.split()) == sorted(map(str, files))


# --- what the services make of them ---


@pytest.mark.parametrize("service", WORKLOADS)
def test_a_service_beside_services_of_kubernetes_starts_as_it_should(service, monkeypatch):
    """Of the variables that a pod has, the image's come first, then links to Services, then the pod's own."""
    stage, spec = STAGES[service], container(service)
    own = {entry["name"]: entry.get("value", "node-1") for entry in spec["env"]}
    for name, value in (stage.env | SERVICE_LINKS | own).items():
        monkeypatch.setenv(name, value)
    arguments = [re.sub(r"\$\((\w+)\)", lambda match: own[match[1]], argument) for argument in spec["args"]]
    settings: Any = parse([*stage.entrypoint[1:], *arguments])[1]
    (port,) = spec["ports"]
    if service == "detector":
        assert (settings.host, settings.port) == ("0.0.0.0", port["containerPort"])
        assert settings.tokens
        assert settings.tls_cert
        assert not settings.insecure
    else:
        assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", port["containerPort"])
        served = one("Service")
        assert settings.detector == f"wss://{served['metadata']['name']}:{served['spec']['ports'][0]['port']}"
        assert settings.stream == "node-1"
        assert not settings.insecure
    assert pod(service)["enableServiceLinks"] is False
    assert spec["image"] == f"splitcast-{service}"


def test_service_links_alone_leave_the_port_as_it_is(monkeypatch):
    """Without `enableServiceLinks: false`, and without a port of its own."""
    for name, value in (STAGES["detector"].env | SERVICE_LINKS).items():
        monkeypatch.setenv(name, value)
    settings: Any = parse(["detector", "--insecure"])[1]
    assert settings.port == 8765


@pytest.mark.parametrize("service", WORKLOADS)
def test_every_file_that_a_setting_names_is_mounted(service):
    spec, volumes = container(service), {volume["name"]: volume for volume in pod(service)["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in spec["volumeMounts"]}
    secret = mounts["/etc/splitcast"]["secret"]
    folder = K8S if service == "detector" else K8S / "camera"
    (generator,) = (
        each for each in kustomization(folder)["secretGenerator"] if each["name"] == secret["secretName"]
    )
    keys = {file.split("=")[0].rpartition("/")[2] for file in generator["files"]}
    named = {Path(entry["value"]) for entry in spec["env"] if entry.get("value", "").startswith("/")}
    assert {path.name for path in named} == keys
    assert {str(path.parent) for path in named} == {"/etc/splitcast"}
    assert secret["defaultMode"] & 0o007 == 0
    assert pod(service)["securityContext"]["fsGroup"] == int(STAGES[service].user.split(":")[1])
    assert {STAGES[service].env["XDG_CACHE_HOME"], "/tmp"} <= mounts.keys()  # noqa: S108 - what may be written to


def test_a_detector_promises_less_memory_than_it_may_take():
    limit = container("detector")["resources"]["limits"]["memory"]
    (most,) = (
        entry["value"] for entry in container("detector")["env"] if entry["name"] == "SPLITCAST_MAX_MEMORY"
    )
    assert int(most) < int(limit.removesuffix("Gi")) * 1024


@pytest.mark.parametrize("service", WORKLOADS)
def test_a_pod_is_restricted_and_probed(service):
    spec, outer = container(service), pod(service)["securityContext"]
    assert outer["runAsNonRoot"]
    assert f"{outer['runAsUser']}:{outer['runAsGroup']}" == STAGES[service].user
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod(service)["automountServiceAccountToken"]
    probes = {name: spec[name]["httpGet"] for name in spec if name.endswith("Probe")}
    assert probes["livenessProbe"]["path"] == "/livez"
    assert {probe["port"] for probe in probes.values()} == {port["name"] for port in spec["ports"]}
    start = spec["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 600  # kernels are compiled on a slow machine
    if service == "detector":
        assert probes["readinessProbe"]["path"] == "/readyz"
        assert {probe["scheme"] for probe in probes.values()} == {"HTTPS"}


def test_what_selects_pods_selects_ours():
    assert selects(one("Service")["spec"]["selector"], "detector")
    assert selects(one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], "detector")
    monitor = one("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= one("Service")["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == one("Service")["spec"]["ports"][0]["name"]
    assert (endpoint["scheme"], endpoint["path"]) == ("https", "/metrics")
    (generator,) = (g for g in kustomization(K8S)["secretGenerator"] if g["name"] == "splitcast-metrics")
    assert {file.split("=")[0].rpartition("/")[2] for file in generator["files"]} == {"ca.crt", "token"}


@pytest.mark.parametrize("service", WORKLOADS)
def test_only_who_is_named_reaches_a_pod(service):
    policy = one("NetworkPolicy", f"splitcast-{service}")["spec"]
    assert selects(policy["podSelector"]["matchLabels"], service)
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = policy["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [
        port["name"] for port in container(service)["ports"]
    ]
    assert all(ingress["from"])  # an empty one would be everybody


def test_cameras_may_reach_the_detector():
    entering = one("NetworkPolicy", "splitcast-detector")["spec"]["ingress"][0]["from"]
    assert any(
        selects(who["podSelector"]["matchLabels"], "camera")
        for who in entering
        if len(who) == 1 and "podSelector" in who
    )
    leaving = one("NetworkPolicy", "splitcast-camera")["spec"]["egress"][0]
    assert selects(leaving["to"][0]["podSelector"]["matchLabels"], "detector")
    assert leaving["ports"] == [{"port": container("detector")["ports"][0]["containerPort"]}]
