"""The balancers' own programs take the files that operators get."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.deploy.balancers import HAPROXY
from tests.paths import DEPLOY
from tests.services.waiting import LIVENESS_S

PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
NGINX, ENVOY = shutil.which("nginx", path=PATH), shutil.which("envoy", path=PATH)
HAPROXY_FILES = [DEPLOY / "haproxy/haproxy.cfg", DEPLOY / "k8s/shards/haproxy.cfg"]


def with_certificate(file: Path, folder: Path) -> Path:
    """The file, with a certificate of the test's own wherever it names one."""
    authority = Authority(folder)
    text = re.sub(r"/etc/\w+/\w+\.(pem|crt|key)", str(authority.sign()), file.read_text())
    copied = folder / file.name
    copied.write_text(text.replace("/run/haproxy/admin.sock", str(folder / "admin.sock")))
    return copied


def check(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIVENESS_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr


@pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")
@pytest.mark.parametrize("file", HAPROXY_FILES, ids=lambda file: file.parent.name)
def test_haproxy_takes_its_file(file, tmp_path):
    check(HAPROXY, "-c", "-f", with_certificate(file, tmp_path))


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_nginx_takes_its_file(tmp_path):
    included = with_certificate(DEPLOY / "nginx/splitcast.conf", tmp_path)
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ access_log off; include {included}; }}\n")
    check(NGINX, "-t", "-e", tmp_path / "error.log", "-c", whole)


@pytest.mark.skipif(not ENVOY, reason="envoy is not installed")
def test_envoy_takes_its_file(tmp_path):
    check(ENVOY, "--mode", "validate", "-c", with_certificate(DEPLOY / "envoy/envoy.yaml", tmp_path))


@pytest.mark.parametrize("file", HAPROXY_FILES, ids=lambda file: file.parent.name)
def test_every_shard_is_written_alike(file):
    """Each is in the hash by its own number, has a place of its own, and stands in for all others."""
    sections = dict(
        re.findall(
            r"^((?:backend|frontend) [\w-]+)\n(.*?)(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL
        )
    )
    shards = re.findall(r"server (\w+) abns@splitcast-(\w+) id (\d+)", sections["backend shards"])
    assert [(name, place, f"s{number}") for name, place, number in shards] == [
        (f"s{number}",) * 3 for number in (1, 2, 3)
    ]
    addresses = {}
    for name, *_ in shards:
        assert f"bind abns@splitcast-{name}\n    default_backend {name}" in sections[f"frontend shard-{name}"]
        servers = re.findall(r"server (\w+) (\S+) (.*)", sections[f"backend {name}"])
        assert {server for server, *_ in servers} == {shard for shard, *_ in shards}
        assert servers[0][0] == name
        for server, address, options in servers:
            assert addresses.setdefault(server, address) == address
            assert f"id {server.removeprefix('s')} " in options
            backup = options.endswith(f"track {server}/{server} backup")
            assert backup == (server != name)
            assert ("on-marked-up shutdown-backup-sessions" in options) == (server == name)
        assert f"server {name} {addresses[name]} " in sections[f"backend only-{name}"]
    assert len(set(addresses.values())) == len(shards)
