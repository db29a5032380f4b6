"""Images, compose file and the files they mount fit together; an engine is not needed to see it."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.camera.metrics import serve_metrics
from services.cli import parse
from tests.certificates import Authority
from tests.deploy.dockerfile import read_stages
from tests.paths import DEPLOY, ROOT
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

STAGES = read_stages(DEPLOY / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("detector", "camera")


def mounts(service: str) -> dict[str, Path]:
    """Container paths of a service's bind mounts, with the files of the repository behind them."""
    pairs = (volume.split(":") for volume in SERVICES[service]["volumes"])
    return {pair[1]: DEPLOY / pair[0] for pair in pairs if pair[0].startswith(".")}


def behind(service: str, path: str) -> Path:
    """The file of the repository that a service sees at `path`."""
    for target, source in mounts(service).items():
        if Path(path).is_relative_to(target):
            return source / Path(path).relative_to(target)
    raise AssertionError(f"{service} has nothing mounted at {path}")


def settings(service: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a service of ours is set to by its image and its command."""
    stage = STAGES[SERVICES[service]["build"]["target"]]
    for name, value in stage.env.items():
        if name.startswith("SPLITCAST_"):
            monkeypatch.setenv(name, value)
    program, *arguments = [*stage.entrypoint, *SERVICES[service]["command"]]
    assert program == "splitcast"
    assert arguments[0] == service
    return parse(arguments)[1]


# --- linters ---


def test_dockerfile_has_no_finding():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint, "hadolint comes with the extra `test`"
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_files_follow_the_specification():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, DEPLOY / "compose.yaml", DEPLOY / "compose.tls.yaml"],
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# --- images ---


def test_what_the_images_are_built_from_reaches_the_builder():
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {path.rstrip("/") for stage in STAGES.values() for path in stage.context}
    assert copied == admitted
    assert all((ROOT / path).exists() for path in copied)
    excluded = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert any(fnmatch.fnmatch("stream/__pycache__", rule) for rule in excluded)


def test_the_package_is_built_from_all_it_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {
        pattern.removesuffix("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    needed = {*folders, *project["project"]["license-files"]}
    needed |= {project["project"]["readme"], "pyproject.toml"}
    assert {path.rstrip("/") for path in STAGES["package"].context} == needed


@pytest.mark.parametrize("extra", ["", "torch"])
def test_the_list_of_dependencies_is_the_projects(extra, tmp_path):
    """The first step of the image, up to the call of pip, as a shell runs it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = STAGES["dependencies"].runs[1].split("&&")[0]
    assert command.startswith("python -c ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "EXTRAS": extra}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=LIVENESS_S)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = project["dependencies"] + project["optional-dependencies"].get(extra, [])
    assert (tmp_path / "requirements.txt").read_text().splitlines() == dependencies
    assert any(dependency.startswith("opencv-python>") for dependency in dependencies)  # the one replaced


@pytest.mark.parametrize("name", OURS)
def test_an_image_runs_without_privileges(name):
    stage = STAGES[name]
    user, group = stage.user.split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000  # numbers: Kubernetes checks that they are not root's
    cache = stage.env["XDG_CACHE_HOME"]
    assert any(
        f"install --directory --owner=splitcast --group=splitcast {cache}" in run
        for run in STAGES["runtime"].runs
    )
    for variable in ("NUMBA_CACHE_DIR", "YOLO_CONFIG_DIR"):
        assert Path(stage.env[variable]).is_relative_to(cache)
    assert stage.env["YOLO_OFFLINE"] == "true"  # nothing is looked up on the internet
    assert set(stage.stages) <= set(STAGES)


async def probe(name: str, port: int, **variables: str) -> int:
    """Exit code of an image's health check."""
    stage = STAGES[name]
    program, *arguments = stage.healthcheck
    assert program == "python"
    (variable,) = (name for name in stage.env if name.startswith("SPLITCAST_") and name.endswith("PORT"))
    # A proxy is no way to oneself.
    environment = os.environ | {
        variable: str(port),
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), LIVENESS_S)


async def test_health_checks_tell_health(start_detector, make_camera):
    async with start_detector() as running:
        camera = make_camera(running.url, metrics_port=free_port())
        async with serve_metrics(camera.statistics.metrics, camera.config):
            assert await probe("detector", running.port) == 0
            assert await probe("camera", camera.config.metrics_port) == 0
            running.detector.ready.clear()
            assert await probe("detector", running.port) == 1
    assert await probe("camera", camera.config.metrics_port) == 1


async def test_health_checks_show_a_certificate_where_one_is_asked_for(start_detector, make_camera, tmp_path):
    authority = Authority(tmp_path)
    server, client = authority.sign(), authority.sign("probe@splitcast.example", file="client.pem")
    shown = {"SPLITCAST_PROBE_CERT": str(client)}
    async with start_detector(tls_cert=server, tls_client_ca=authority.file) as running:
        assert await probe("detector", running.port, SPLITCAST_TLS_CERT=str(server)) == 1
        assert await probe("detector", running.port, SPLITCAST_TLS_CERT=str(server), **shown) == 0
    files = {"metrics_tls_cert": server, "metrics_tls_client_ca": authority.file}
    camera = make_camera("ws://127.0.0.1:9", metrics_port=free_port(), **files)
    async with serve_metrics(camera.statistics.metrics, camera.config):
        port = camera.config.metrics_port
        assert await probe("camera", port, SPLITCAST_METRICS_TLS_CERT=str(server)) == 1
        assert await probe("camera", port, SPLITCAST_METRICS_TLS_CERT=str(server), **shown) == 0


# --- compose ---


@pytest.mark.parametrize("name", OURS)
def test_images_of_ours_are_built_here(name):
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert STAGES[build["target"]].entrypoint == ["splitcast", name]
    kept = [f"cache:{STAGES[name].env['XDG_CACHE_HOME']}"]
    if name == "camera":
        kept.append(f"state:{STAGES[name].env['XDG_STATE_HOME']}")
    assert SERVICES[name]["volumes"] == kept


def test_commands_and_ports_agree(monkeypatch):
    with monkeypatch.context() as patch:
        detector = settings("detector", patch)
    with monkeypatch.context() as patch:
        camera = settings("camera", patch)
    assert (detector.host, camera.metrics_host) == ("0.0.0.0", "0.0.0.0")
    assert STAGES["detector"].ports == {detector.port}
    assert STAGES["camera"].ports == {camera.metrics_port}
    assert camera.detector == f"ws://detector:{detector.port}"
    assert camera.model == detector.model
    assert SERVICES["detector"]["ports"] == [f"127.0.0.1:{detector.port}:{detector.port}"]
    scraped = {
        job["job_name"]: [target for group in job["static_configs"] for target in group["targets"]]
        for job in yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert scraped == {
        "splitcast-detector": [f"detector:{detector.port}"],
        "splitcast-camera": [f"camera:{camera.metrics_port}"],
    }


def test_a_detector_promises_less_memory_than_it_may_take(monkeypatch):
    limit = SERVICES["detector"]["mem_limit"]
    assert settings("detector", monkeypatch).max_memory < int(limit.removesuffix("g")) * 1024


def test_with_tokens_and_tls_the_rest_is_the_same():
    """What is said twice, as one file over another can only replace it."""
    over = yaml.safe_load((DEPLOY / "compose.tls.yaml").read_text())["services"]
    command = [word for word in SERVICES["detector"]["command"] if word != "--insecure"]
    assert over["detector"]["command"] == command
    command = [word.replace("ws://", "wss://") for word in SERVICES["camera"]["command"]]
    assert over["camera"]["command"] == command
    secured, plain = (
        yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for name in ("prometheus.tls.yml", "prometheus.yml")
    )
    for job in secured["scrape_configs"]:
        for name in ("scheme", "tls_config", "authorization"):
            job.pop(name, None)
    assert secured == plain


def test_secrets_lie_where_git_looks_away():
    over = yaml.safe_load((DEPLOY / "compose.tls.yaml").read_text())["services"]
    mounted = [volume for service in over.values() for volume in service["volumes"] if "SECRETS" in volume]
    assert len(mounted) == len(over)
    for volume in mounted:
        folder = volume.partition(":-")[2].partition("}")[0]
        file = (DEPLOY / folder / "detector" / "tokens.toml").relative_to(ROOT)
        subprocess.run(["git", "check-ignore", "--quiet", "--no-index", file], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_checked_and_confined(name):
    service = SERVICES[name]
    if name not in OURS:
        _, tag = service["image"].split(":")
        assert tag.count(".") == 2, "an exact version"
    assert service.get("healthcheck") or STAGES[name].healthcheck
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    for other, condition in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert condition == {"condition": "service_healthy"}


def test_everything_mounted_exists():
    for name, service in SERVICES.items():
        assert all(source.is_dir() for source in mounts(name).values())
        named = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
        assert named <= set(COMPOSE["volumes"])


def test_prometheus_finds_its_files():
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in SERVICES["prometheus"]["command"])
    config = behind("prometheus", flags["config.file"])
    rules = yaml.safe_load(config.read_text())["rule_files"]
    assert rules
    assert all((config.parent / name).is_file() for name in rules)
    assert f"prometheus:{flags['storage.tsdb.path']}" in SERVICES["prometheus"]["volumes"]


def test_grafana_finds_its_data_and_its_dashboard():
    provisioning = behind("grafana", "/etc/grafana/provisioning")
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    port = SERVICES["prometheus"]["ports"][0].rsplit(":", 1)[1]
    assert source["url"] == f"http://prometheus:{port}"
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "splitcast.yml").read_text())["providers"]
    provided = behind("grafana", provider["options"]["path"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert behind("grafana", home) in set(provided.glob("*.json"))
