"""The units start what exists and give up on what cannot heal."""

from __future__ import annotations

import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

from services.cli import parse
from services.errors import Exit, SettingsError
from tests.paths import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def test_there_is_a_unit_for_each_service():
    assert [unit.name for unit in UNITS] == ["splitcast-camera@.service", "splitcast-detector.service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_command_is_one_of_ours(path):
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys have capitals
    unit.read(path)
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
