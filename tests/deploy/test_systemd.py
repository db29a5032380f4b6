"""The units start what exists and give up on what cannot heal."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from services.cli import parse
from services.errors import Exit, SettingsError
from tests.paths import DEPLOY

SYSTEMD = "systemd-analyze"
MOST_EXPOSED = 20  # in tenths: systemd calls 2.0 and less OK
needs_systemd = pytest.mark.skipif(not shutil.which(SYSTEMD), reason="systemd is not installed")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def read(path: Path) -> ConfigParser:
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys have capitals
    unit.read(path)
    return unit


def test_there_is_a_unit_for_each_service():
    assert [unit.name for unit in UNITS] == ["splitcast-camera@.service", "splitcast-detector.service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_command_is_one_of_ours(path):
    unit = read(path)
    program, *arguments = shlex.split(unit["Service"]["ExecStart"].replace("%i", "door"))
    assert Path(program).name == "splitcast"
    with pytest.raises(SettingsError, match=r"^cannot read /etc/splitcast/splitcast\.toml: "):
        parse(arguments)
    final = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    camera = arguments[0] == "camera"
    # What the detector refuses, or does not detect on, may be mended there.
    assert final == {Exit.USAGE, Exit.WEIGHTS} | ({Exit.SOURCE} if camera else set())
    environment = dict(pair.split("=", 1) for pair in shlex.split(unit["Service"]["Environment"]))
    assert environment["YOLO_OFFLINE"] == "true"  # nothing is looked up on the internet
    if camera:  # instances are different users: none may own the folder of another
        state = unit["Service"]["StateDirectory"]
        assert "%i" in state
        assert environment["XDG_STATE_HOME"] == f"%S/{state}"


@needs_systemd
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_and_little_exposed(path, tmp_path):
    """An instance, as an instance is what runs, of a program that is there."""
    unit = tmp_path / path.name.replace("@.", "@door.")
    unit.write_text(path.read_text().replace("/opt/splitcast/bin/splitcast", sys.executable))
    environment = os.environ | {"SYSTEMD_LOG_LEVEL": "warning"}
    for arguments in (["verify"], ["security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager"]):
        done = subprocess.run(
            [SYSTEMD, *arguments, unit], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_service_tells_that_it_is_ready_and_lives(path):
    service = read(path)["Service"]
    assert service["Type"] == "notify"  # services/service_manager.py
    assert int(service["WatchdogSec"]) >= 30  # a busy machine is no hang
    assert service["Restart"] == "always"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_secrets_come_as_credentials(path):
    """By names that are looked up in the credential store, where they may be absent; the comment tells of each."""
    text = path.read_text()
    names = [line.partition("=")[2] for line in text.splitlines() if line.startswith("LoadCredential=")]
    assert names
    assert all("/" not in name and ":" not in name for name in names)
    comment = text.partition("[Unit]")[0]
    assert all(name in comment for name in names)
