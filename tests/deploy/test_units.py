"""The units, started by a systemd that runs in a container: what it delivers, hears and ends.

Left out of a plain run of the tests like that of the images, which it shares an engine and the programs with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.deploy.engine import BASE, Engine
from tests.paths import DEPLOY

pytestmark = [pytest.mark.images, pytest.mark.timeout(1500)]

LIMIT_S = 600.0  # only what hangs takes so long
NAME = "splitcast-systemd"
DETECTOR, CAMERA = "splitcast-detector.service", "splitcast-camera@door.service"
WATCHDOG_S = 10  # in place of the unit's minute

# Where a container is told nothing else, systemd leaves all mounts private, and what it mounts for a service in a
# process of its own would stay there. The hierarchy of control groups that Docker gives may be read only.
START = "mount --make-rshared / && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec /lib/systemd/systemd"

IMAGE = f"""
FROM {BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends systemd
COPY --from=splitcast-detector /opt/splitcast /opt/splitcast
ENTRYPOINT {json.dumps(["sh", "-c", START])}
"""

SETTINGS = f"""
[detector]
model = "demo"
host = "0.0.0.0"
tokens = "/run/credentials/{DETECTOR}/splitcast.tokens"
tls_cert = "/run/credentials/{DETECTOR}/splitcast.crt"
tls_key = "/run/credentials/{DETECTOR}/splitcast.key"

[camera]
model = "demo"
source = "demo"
detector = "wss://127.0.0.1:8765"
"""

CAMERA_VARIABLES = f"""
SPLITCAST_TOKEN_FILE=/run/credentials/{CAMERA}/splitcast-camera.token
SPLITCAST_TLS_CA=/run/credentials/{CAMERA}/splitcast-camera.ca
"""

ASK = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile="/etc/credstore/splitcast-camera.ca")
headers = {"Authorization": "Bearer " + sys.argv[1]} if sys.argv[1:] else {}
connection = http.client.HTTPSConnection("127.0.0.1", 8765, context=context)
connection.request("GET", "/v1/streams", headers=headers)
print(connection.getresponse().status)
"""


@dataclass(frozen=True)
class Machine:
    """The container in which a systemd runs, as a machine."""

    engine: Engine
    tokens: dict[str, str]  # of whom: the token

    def __call__(self, *command: str) -> str:
        return self.engine("exec", NAME, *command)

    def property(self, unit: str, name: str) -> str:
        return self("systemctl", "show", "--value", "--property", name, unit)

    def journal(self, unit: str) -> str:
        return self("journalctl", "--no-pager", "--output", "cat", "--unit", unit)

    def start(self, unit: str) -> None:
        """Ends once the service has told that it is ready."""
        self.engine("exec", NAME, "systemctl", "start", unit, check=False)
        assert self.property(unit, "ActiveState") == "active", self.journal(unit)[-4000:]

    def status(self, *token: str) -> str:
        """What the detector answers to who asks for its streams."""
        return self("/opt/splitcast/bin/python", "-c", ASK, *token)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < deadline, self.journal(DETECTOR)[-4000:]
            time.sleep(0.2)


def write_secrets(store: Path) -> dict[str, str]:
    """What /etc/credstore holds, as documented, and the tokens by name."""
    authority = Authority(store.parent / "authority")
    signed = authority.sign().read_bytes()
    for name in ("splitcast.crt", "splitcast.key"):  # both in one file, of which each is read for its part
        (store / name).write_bytes(signed)
    (store / "splitcast-camera.ca").write_bytes(authority.file.read_bytes())
    files = {"door": store / "splitcast-camera.token", "desk": store.parent / "desk.token"}
    for (name, file), role in zip(files.items(), ("camera", "consumer"), strict=True):
        create = [sys.executable, "-m", "services.cli", "token", "create", name, "--role", role]
        create += ["--stream", "door", "--out", file, "--tokens", store / "splitcast.tokens"]
        subprocess.run(create, check=True, capture_output=True)
    for file in store.iterdir():
        file.chmod(0o600)
    return {name: file.read_text().strip() for name, file in files.items()}


@pytest.fixture(scope="module")
def machine(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("systemd")
    (folder / "Dockerfile").write_text(IMAGE)
    engine("build", "--network", "host", "--tag", NAME, str(folder))
    store, settings, drop_in = folder / "credstore", folder / "splitcast", folder / "drop-in"
    store.mkdir(mode=0o700)
    settings.mkdir()
    drop_in.mkdir()
    tokens = write_secrets(store)
    (settings / "splitcast.toml").write_text(SETTINGS)
    (settings / "door.env").write_text(CAMERA_VARIABLES)
    (drop_in / "watchdog.conf").write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    places = {
        DEPLOY / "systemd": "/usr/local/lib/systemd/system",
        store: "/etc/credstore",
        settings: "/etc/splitcast",
        drop_in: f"/etc/systemd/system/{DETECTOR}.d",
    }
    volumes = [word for place in places.items() for word in ("--volume", f"{place[0]}:{place[1]}:ro")]
    flags = ["--detach", "--name", NAME, "--network", "none", "--cgroupns", "private", "--tmpfs", "/run"]
    # What systemd needs to confine services; PTRACE to write the user map of one that it hides processes from.
    rights = ["--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE"]
    rights += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    engine("rm", "--force", NAME, check=False)  # of a run that was killed
    try:
        engine("run", *flags, *rights, "--env", "container=docker", *volumes, NAME)
        booting = ["exec", NAME, "systemctl", "is-system-running"]
        while engine(*booting, check=False) not in ("running", "degraded"):
            if engine.inspect(NAME, ".State.Status") != "running":
                pytest.skip(f"no systemd runs in a container here: {engine('logs', NAME)}")
            time.sleep(0.2)
        running = Machine(engine, tokens)
        began = time.monotonic()
        running.start(DETECTOR)
        print(f"the detector is ready within {time.monotonic() - began:.1f} s")
        yield running
    finally:
        engine("rm", "--force", NAME, check=False)


def test_the_detector_is_active_once_it_tells_that_it_is_ready(machine):
    assert machine.property(DETECTOR, "ActiveState") == "active"
    assert '"event": "ready"' in machine.journal(DETECTOR)


def test_credentials_reach_the_service_alone(machine):
    """Copies that its user reads, who is nobody else's, and that are not the store's files."""
    process = machine.property(DETECTOR, "MainPID")
    user = machine("stat", "--format", "%u", f"/proc/{process}")
    assert user not in ("0", "10001")
    names = ["splitcast.crt", "splitcast.key", "splitcast.tokens"]
    folder = f"/run/credentials/{DETECTOR}"
    assert machine("ls", folder).split() == names
    for name in names:
        assert machine("stat", "--format", "%u %a", f"{folder}/{name}") == f"{user} 400"
        machine("cmp", f"{folder}/{name}", f"/etc/credstore/{name}")
    assert machine("stat", "--format", "%u %a", folder) == f"{user} 500"


def test_a_token_is_required(machine):
    assert machine.status() == "401"
    assert machine.status("spc_" + "A" * 43) == "401"
    assert machine.status(machine.tokens["desk"]) == "200"


def test_a_camera_streams_with_credentials_of_its_own(machine, tmp_path):
    machine.start(CAMERA)
    watch = ["/opt/splitcast/bin/splitcast", "watch", "wss://127.0.0.1:8765", "--json", "--count", "3"]
    watch += ["--stream", "door", "--types", "detections", "--tls-ca", "/etc/credstore/splitcast-camera.ca"]
    seen = machine("env", f"SPLITCAST_TOKEN={machine.tokens['desk']}", *watch)
    assert [json.loads(line)["stream"] for line in seen.splitlines()] == ["door"] * 3
    machine("systemctl", "stop", CAMERA)
    assert machine.property(CAMERA, "Result") == "success"


def test_the_watchdog_starts_a_stopped_detector_anew(machine):
    stopped = machine.property(DETECTOR, "MainPID")
    machine("systemctl", "kill", "--kill-whom", "main", "--signal", "STOP", DETECTOR)
    machine.wait_until(lambda: machine.property(DETECTOR, "NRestarts") == "1")
    machine.wait_until(lambda: machine.property(DETECTOR, "ActiveState") == "active")
    assert machine.property(DETECTOR, "MainPID") not in ("0", stopped)
    assert "Watchdog timeout" in machine("journalctl", "--no-pager", "--unit", DETECTOR)
    assert machine.status(machine.tokens["desk"]) == "200"


def test_a_stop_is_a_success_and_no_journal_has_a_token(machine):
    machine("systemctl", "stop", DETECTOR)
    assert machine.property(DETECTOR, "Result") == "success"
    assert machine.property(DETECTOR, "ExecMainStatus") == "0"
    journal = machine("journalctl", "--no-pager")
    assert "detector stopped" in journal
    assert not [name for name, token in machine.tokens.items() if token in journal]
