"""A Docker engine of the tests' own, with a stand-in for the base image, which cannot be pulled everywhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.dockerfile import read_stages
from tests.paths import DEPLOY, ROOT

CACHE = Path(os.environ.get("SPLITCAST_IMAGES_CACHE", "/var/cache/splitcast-images"))
"""Layers of earlier runs: outside the checkout, so that they outlive it."""

LIMIT_S = 900.0  # one command of the engine; only what hangs takes so long
KEPT_BYTES = "6GB"  # of the builder's cache
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASES = {stage.base for stage in read_stages(DEPLOY / "Dockerfile").values()}
(BASE,) = BASES - set(read_stages(DEPLOY / "Dockerfile"))
FINGERPRINT = "splitcast.stand-in"  # a label: what the base was made from


def why_not() -> str | None:
    """Why no engine can be started here; None where one can."""
    needed = ("dockerd", "docker", "docker-compose", "debootstrap", "pip3")
    if lacking := [program for program in needed if not shutil.which(program)]:
        return f"not installed: {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "a Docker engine has to be started as root"
    if answers(Path("/var/run/docker.sock")):
        return "a Docker engine runs here already, and two would share their firewall rules"
    return None


def answers(address: Path) -> bool:
    """Whether somebody listens on this socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(address)) == 0


class NoEngine(Exception):
    """This machine lets none start, or gives no base image."""


class Engine:
    """The client of one engine."""

    def __init__(self, address: Path) -> None:
        # Debian's own client has BuildKit built in; another one that comes first on the path may have not.
        self._client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        self._environment = os.environ | {"DOCKER_HOST": f"unix://{address}", "DOCKER_BUILDKIT": "1"}

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        """What a command of the client prints, on both streams where it fails."""
        done = subprocess.run(
            [self._client, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if check else subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {arguments[0]}: {done.stdout[-8000:]}"
        return done.stdout.strip()

    def compose(
        self,
        document: Mapping[str, Any],
        *arguments: str,
        over: Sequence[Path] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """One command of docker-compose on a document as `compose.yaml` is one, read from where that lies.

        `over` are files that change the document, and `variables` what they may name.
        """
        place = ["--project-directory", DEPLOY, "--project-name", "splitcast"]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as written:
            yaml.safe_dump(dict(document), written)
            written.flush()
            files = [word for file in (written.name, *over) for word in ("--file", file)]
            done = subprocess.run(
                ["docker-compose", *files, *place, *arguments],
                stdin=subprocess.DEVNULL,
                env=self._environment | dict(variables or {}),
                cwd=DEPLOY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        assert done.returncode == 0, f"docker-compose {arguments[0]}: {done.stdout[-8000:]}"

    def inspect(self, name: str, what: str) -> str:
        """A part of an image's or a container's description, as a template of Go names it; empty where it is not."""
        return self("inspect", "--format", f"{{{{{what}}}}}", name, check=False)

    def build(self, target: str) -> None:
        """One of our images, under the name that compose.yaml and the README give it."""
        flags = ["--network", "host", "--file", str(DEPLOY / "Dockerfile"), "--target", target]
        self("build", *flags, "--tag", f"splitcast-{target}", str(ROOT))

    def make_base(self) -> None:
        """Debian with Python, under the base image's name, as Debian's packages and this machine's settings make it."""
        settings = pip_settings()
        recipe = hashlib.sha256(f"{PACKAGES}\n{settings}\n".encode() + CERTIFICATES.read_bytes()).hexdigest()
        if self.inspect(BASE, f'index .Config.Labels "{FINGERPRINT}"') == recipe:
            return
        release = BASE.rsplit("-", 1)[1]
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            root = Path(folder) / "root"
            making = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, str(root)]
            done = subprocess.run(
                making, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                raise NoEngine(f"debootstrap cannot make the base image: {done.stdout[-1000:]}")
            (root / "usr/bin/python").symlink_to("python3")
            (root / "etc/pip.conf").write_text(settings)
            # A machine behind a proxy has authorities of its own.
            shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
            archive = Path(folder) / "root.tar"
            subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=LIMIT_S)
            self("import", "--change", f"LABEL {FINGERPRINT}={recipe}", archive, BASE)

    def make_prometheus(self, name: str) -> None:
        """Debian's Prometheus under the name of the image that compose.yaml wants."""
        with tempfile.TemporaryDirectory() as folder:
            for program in ("prometheus", "promtool"):
                shutil.copy(shutil.which(program) or program, folder)
            (Path(folder) / "Dockerfile").write_text(
                f"FROM {BASE}\n"
                "RUN install --directory --owner=65534 --group=65534 /prometheus\n"
                "COPY prometheus promtool /bin/\n"
                "USER 65534:65534\n"
                'ENTRYPOINT ["/bin/prometheus"]\n'
            )
            self("build", "--network", "host", "--tag", name, folder)


def pip_settings() -> str:
    """Where pip finds packages on this machine; folders of its own are none of a container's."""
    found = ["[global]", f"cert = {CERTIFICATES}"]
    for name in ("index-url", "extra-index-url", "trusted-host", "proxy"):
        done = subprocess.run(
            ["pip3", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
        )
        values = [value for value in done.stdout.split() if not value.startswith("file:")]
        if values:
            found.append(f"{name} = {' '.join(values)}")
    return "\n".join(found) + "\n"


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with the layers of earlier runs, which is stopped afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="docker-", dir="/run") as folder:
        address, log = Path(folder) / "socket", CACHE / "dockerd.log"
        command = [
            "dockerd",
            "--host",
            f"unix://{address}",
            "--data-root",
            CACHE / "docker",
            "--bridge",
            "none",
        ]
        command += ["--exec-root", Path(folder) / "exec", "--pidfile", Path(folder) / "pid"]
        with log.open("w") as output:
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            engine = Engine(address)
            deadline = time.monotonic() + LIMIT_S
            while not engine("info", "--format", "{{.Driver}}", check=False):
                if daemon.poll() is not None:
                    raise NoEngine(f"dockerd cannot be started: {log.read_text()[-1000:]}")
                assert time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(0.2)
            yield engine
            engine("image", "prune", "--force")
            engine("builder", "prune", "--force", "--keep-storage", KEPT_BYTES)
        finally:
            daemon.terminate()
            daemon.wait(LIMIT_S)
            # Which a container without a network leaves behind.
            left = Path(folder) / "exec/netns/default"
            subprocess.run(["umount", left], stderr=subprocess.DEVNULL, check=False)
