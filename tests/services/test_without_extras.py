"""Camera and detector, end to end, in an installation that has no extra: as if torch and its like were not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from services.errors import Exit
from services.extras import EXTRAS
from tests.paths import ROOT
from tests.services.waiting import LIVENESS_S

# Loaded by each Python that starts, so also by the process of the demo's detector.
WITHOUT_EXTRAS = f"""
import sys
from importlib.machinery import PathFinder

class PlainInstallation(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in {sorted(module for modules in EXTRAS.values() for module in modules)}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = PlainInstallation
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRAS)
    return os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def run(arguments, environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
    )


@pytest.mark.parametrize("module", ["torch", "ultralytics", "scipy", "matplotlib"])
def test_extras_are_out_of_reach(module, environment):
    assert f"No module named '{module}'" in run(["-c", f"import {module}"], environment).stderr


def test_the_demo_detects(environment, tmp_path):
    flags = ["--source", "demo:scene=bus", "--seconds", "5", "--json", str(tmp_path / "summary.json")]
    ran = run(["-m", "services.cli", "demo", *flags], environment)
    assert ran.returncode == Exit.OK, ran.stdout + ran.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] > 0
    assert summary["detections_by_class"]["person"] > 0


def test_step_maps_need_torch(environment):
    ran = run(
        ["-m", "services.cli", "detector", "--model", "demo", "--port", "0", "--feedback", "4"], environment
    )
    assert ran.returncode == Exit.USAGE
    assert "needs the extra 'torch': pip install 'splitcast[torch]'" in ran.stderr
