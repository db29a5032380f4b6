"""The images and the compose file, by an engine that builds and runs them.

Left out of a plain run of the tests, as it takes minutes and root: `pytest -m images tests/deploy`, as `.ci/run` does.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from aiohttp import ClientSession

from services.access.token_editing import add_token
from services.access.token_file import TokenEntry
from services.access.tokens import new_token, token_hash
from tests.deploy import engine as engines
from tests.deploy.engine import Engine
from tests.deploy.test_prometheus import PLAIN, VARIABLES, Server
from tests.paths import DEPLOY

pytestmark = [pytest.mark.images, pytest.mark.timeout(1500)]

LIMIT_S = 600.0  # only what hangs takes so long
OURS = ("detector", "camera")
README = (DEPLOY / "README.md").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
LOADS = [f"splitcast-load-{number}" for number in range(4)]  # more than two cores keep up with
READY = "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/-/ready')"
CONFIG = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
SCRAPE_S = int(CONFIG["global"]["scrape_interval"].removesuffix("s"))
# Series that the dashboard shows of a camera that is told a rate.
RATE = ["--target-kbps", "500", "--max-latency-ms", "5000"]


@dataclass(frozen=True)
class Stack:
    """What compose.yaml brings up, with the little that is other here."""

    engine: Engine
    document: dict[str, Any]

    def container(self, service: str) -> str:
        return f"splitcast_{service}_1"

    def address(self, service: str) -> str:
        (port,) = self.document["services"][service]["ports"]
        published = self.engine("port", self.container(service), port.rsplit(":", 1)[1])
        return published.splitlines()[0]

    def health(self, service: str) -> str:
        return self.engine.inspect(self.container(service), ".State.Health.Status")

    def log(self, service: str) -> list[dict[str, Any]]:
        lines = self.engine("logs", self.container(service)).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def scraped(self, service: str) -> str:
        """What the service tells Prometheus now."""
        with urlopen(f"http://{self.address(service)}/metrics", timeout=LIMIT_S) as answer:
            text: str = answer.read().decode()
        return text

    def run(self, service: str, *command: str) -> str:
        """What a command prints in a running container."""
        return self.engine("exec", self.container(service), *command)

    def wait_until_healthy(self, *services: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        for service in services:
            while (health := self.health(service)) != "healthy":
                state = self.engine.inspect(self.container(service), ".State.Status")
                if state != "running" or time.monotonic() > deadline:
                    told = self.engine("logs", "--tail", "20", self.container(service))
                    raise AssertionError(f"{service} is {state} and {health}: {told}")
                time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(engine: Engine) -> Iterator[Stack]:
    document = copy.deepcopy(COMPOSE)
    del document["name"]  # which Debian's docker-compose does not know
    services = document["services"]
    del services["grafana"], document["volumes"]["grafana"]
    for service in services.values():  # ports of this machine that are free
        service["ports"] = [re.sub(r":\d+:", "::", port) for port in service.get("ports", [])]
    services["camera"]["command"] = [*services["camera"]["command"], *RATE]
    # Debian's promtool cannot ask this.
    services["prometheus"]["healthcheck"]["test"] = ["CMD", "python", "-c", READY]
    engine.make_prometheus(services["prometheus"]["image"])
    running = Stack(engine, document)
    engine.compose(document, "down", "--volumes")  # of a run that was killed
    try:
        engine.compose(document, "up", "--detach", "--no-build")
        running.wait_until_healthy(*services)
        yield running
    finally:
        engine.compose(document, "down", "--volumes", "--timeout", "1")


# --- what runs ---


def test_the_images_have_no_more_than_the_services_need(engine):
    for target in OURS:
        size = int(engine.inspect(f"splitcast-{target}", ".Size"))
        base = int(engine.inspect(engines.BASE, ".Size"))
        print(f"splitcast-{target}: {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB above its base")
        assert size - base < 900e6


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_confined(stack, service):
    status = dict(line.split(":", 1) for line in stack.run(service, "cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    write = "import pathlib; pathlib.Path('/opt/splitcast/written').touch()"
    refused = stack.engine("exec", stack.container(service), "sh", "-c", f'python -c "{write}" 2>&1 || true')
    assert "Read-only file system" in refused


async def test_detections_flow(stack):
    async with (
        ClientSession() as session,
        session.ws_connect(f"http://{stack.address('detector')}/v1/streams/demo/detections") as consumer,
        asyncio.timeout(LIMIT_S),
    ):
        async for message in consumer:
            if message.json().get("predictions"):
                return
    raise AssertionError("the detector closed the connection")


async def test_prometheus_scrapes_both_and_every_panel_shows_something(stack):
    empty = set(PLAIN)
    async with ClientSession() as session, asyncio.timeout(LIMIT_S):
        server = Server(f"http://{stack.address('prometheus')}", session, SCRAPE_S)
        while empty:
            instances = {
                name: await server.instances(name) for name in VARIABLES if VARIABLES[name]["type"] == "query"
            }
            if all(instances.values()):
                for query in list(empty):
                    if await server.has_data(query, instances):
                        empty.discard(query)
            await asyncio.sleep(1)
        targets = (await server.get("targets"))["activeTargets"]
    assert {(target["labels"]["job"], target["health"]) for target in targets} == {
        ("splitcast-detector", "up"),
        ("splitcast-camera", "up"),
    }


# --- a stop, and a second start ---


def test_a_busy_detector_stops_in_time(stack):
    """Ten seconds are what `docker stop` gives a container that nobody said more of."""
    engine = stack.engine
    network = next(
        iter(json.loads(engine("inspect", stack.container("detector")))[0]["NetworkSettings"]["Networks"])
    )
    flags = ["--detach", "--rm", "--network", network, "--volume", "splitcast_cache:/var/cache/splitcast"]
    source = ["--source", "demo", "--model", "demo", "--detector", "ws://detector:8765"]
    for name in LOADS:
        engine("run", *flags, "--name", name, "splitcast-camera", *source, "--stream", name)
    try:
        deadline = time.monotonic() + LIMIT_S
        while f"splitcast_detector_streams {len(LOADS) + 1}.0" not in stack.scraped("detector"):
            assert time.monotonic() < deadline, stack.log("detector")[-10:]
            time.sleep(0.5)
        began = time.monotonic()
        engine("stop", "--time", "10", stack.container("detector"))
        print(f"the detector stopped within {time.monotonic() - began:.1f} s")
    finally:
        engine("rm", "--force", *LOADS, check=False)
    assert engine.inspect(stack.container("detector"), ".State.ExitCode") == "0"
    assert "detector stopped" in [entry["event"] for entry in stack.log("detector")]


@pytest.mark.parametrize("service", OURS)
def test_a_second_start_compiles_nothing_and_volumes_keep_their_owner(stack, service):
    listing = ["find", "/var/cache/splitcast", "/var/lib/splitcast", "-printf", "%p %U:%G %T@\\n"]
    stack.engine("start", stack.container(service), check=False)
    stack.wait_until_healthy(service)
    before = stack.run(service, *listing)
    kernels = [line for line in before.splitlines() if ".nbi " in line or ".nbc " in line]
    assert len(kernels) > 10
    stack.engine("rm", "--force", stack.container(service))
    began = time.monotonic()
    stack.engine.compose(stack.document, "up", "--detach", "--no-build", service)
    stack.wait_until_healthy(service)
    print(f"{service}: healthy within {time.monotonic() - began:.1f} s of its second start")
    after = stack.run(service, *listing)
    assert [line for line in after.splitlines() if ".nbi " in line or ".nbc " in line] == kernels
    assert {line.split()[-2] for line in after.splitlines()} == {"10001:10001"}


# --- with tokens and TLS ---


@dataclass(frozen=True)
class Secured:
    """What compose.tls.yaml makes of the stack, with what the README has people make."""

    stack: Stack
    secrets: Path
    made: list[str]  # tokens

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.secrets / "camera" / "ca.crt")

    def status(self, path: str, token: str | None) -> int:
        """What the detector answers."""
        connection = HTTPSConnection(self.stack.address("detector"), context=self.context(), timeout=LIMIT_S)
        with closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status

    def wait_until_granted(self, path: str, token: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while self.status(path, token) != 200:
            assert time.monotonic() < deadline, self.stack.log("detector")[-10:]
            time.sleep(0.1)


def secrets_of_the_readme(folder: Path) -> list[str]:
    """Run the README's commands in a folder: the tokens that they make."""
    (commands,) = re.findall(r"```sh\n(\(umask.*?)^docker", README, re.DOTALL | re.MULTILINE)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [shown.strip(), *(file.read_text().strip() for file in folder.rglob("*.token"))]


@pytest.fixture(scope="module")
def secured(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Secured:
    """The stack anew, with the volumes that it has."""
    folder = tmp_path_factory.mktemp("checkout")
    made = secrets_of_the_readme(folder)
    secrets = folder / "deploy" / "secrets"
    over, variables = [DEPLOY / "compose.tls.yaml"], {"SPLITCAST_SECRETS": str(secrets)}
    stack.engine.compose(stack.document, "up", "--detach", "--no-build", over=over, variables=variables)
    stack.wait_until_healthy(*stack.document["services"])
    return Secured(stack, secrets, made)


def test_nobody_comes_in_without_a_token(secured):
    for path, token in itertools.product(("/v1/streams", "/metrics"), (None, new_token())):
        assert secured.status(path, token) == 401


def test_detections_flow_to_a_token_that_is_made_meanwhile(secured, tmp_path):
    """In a folder that the container sees, read at SIGHUP."""
    stack, token, file = secured.stack, new_token(), tmp_path / "late.token"
    entry = {"name": "late", "hash": token_hash(token), "roles": ["consumer"], "streams": ["demo"]}
    add_token(secured.secrets / "detector" / "tokens.toml", TokenEntry.model_validate(entry))
    file.write_text(token)
    secured.made.append(token)
    stack.engine("kill", "--signal", "HUP", stack.container("detector"))
    secured.wait_until_granted("/v1/streams/demo", token)
    watch = [sys.executable, "-m", "services.cli", "watch", f"wss://{stack.address('detector')}", "--json"]
    watch += ["--tls-ca", secured.secrets / "camera" / "ca.crt", "--token-file", file]
    watch += ["--stream", "demo", "--types", "detections", "--count", "3"]
    seen = subprocess.run(watch, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    assert [json.loads(line)["stream"] for line in seen.splitlines()] == ["demo"] * 3


async def test_prometheus_scrapes_with_its_token(secured):
    async with ClientSession() as session, asyncio.timeout(LIMIT_S):
        server = Server(f"http://{secured.stack.address('prometheus')}", session, SCRAPE_S)
        while True:
            targets = (await server.get("targets"))["activeTargets"]
            up = {target["scrapeUrl"] for target in targets if target["health"] == "up"}
            if up == {"https://detector:8765/metrics", "http://camera:8766/metrics"}:
                return
            await asyncio.sleep(1)


def test_no_token_is_in_a_log_or_a_containers_description(secured):
    stack = secured.stack
    assert len(secured.made) == 4
    for service in stack.document["services"]:
        container = stack.container(service)
        told = stack.engine("inspect", container) + stack.engine("logs", container)
        assert '"Env"' in told
        assert not [token for token in secured.made if token in told]


def test_grafana_comes_up(engine):
    image = COMPOSE["services"]["grafana"]["image"]
    if not engine("pull", "--quiet", image, check=False):
        pytest.skip(f"{image} cannot be pulled here")
    engine("run", "--rm", "--entrypoint", "grafana", image, "--version")
