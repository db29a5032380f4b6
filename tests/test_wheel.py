"""What is installed is what the checkout holds: every module, the data beside it, and nothing of the workshop."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("codec", "stream", "services")
WORKSHOP = "services/training/"  # makes the bundled weights, from data that does not come with the project


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, so that nothing of an earlier build is in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", copy]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def installed(wheel: Path) -> set[str]:
    """Paths of what the wheel puts beside other packages."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_holds_every_module_with_its_data_and_nothing_else(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert installed(wheel) == {name for name in files if not name.startswith(WORKSHOP)}


def test_holds_data_of_every_kind(wheel):
    """So that the test above cannot pass for want of files."""
    names = installed(wheel)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for folder in (
        "codec/feature/profiles",
        "stream/network/bundled",
        "stream/sources/photographs",
        "services/detector/page",
        "services/evaluation/templates",
        "services/study/templates",
    ):
        assert any(name.startswith(f"{folder}/") and not name.endswith(".py") for name in names), folder
    assert not [name for name in names if name.startswith(("tests/", WORKSHOP))]


def test_has_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        text = archive.read(name).decode()
    entries = ConfigParser()
    entries.read_string(text)
    assert dict(entries["console_scripts"]) == {"splitcast": "services.cli:run"}
