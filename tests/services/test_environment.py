"""The environment is set before libraries read it, in a process of its own: here they are loaded already."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.environment import prepare_process
from tests.services.waiting import LIVENESS_S

VARIABLES = ("YOLO_OFFLINE", "OPENBLAS_NUM_THREADS")
LOAD = """
import os, sys
assert not {"numpy", "ultralytics"} & sys.modules.keys(), "they have read the environment already"
import ultralytics.utils
print(ultralytics.utils.ONLINE, os.environ["YOLO_OFFLINE"], os.environ["OPENBLAS_NUM_THREADS"])
"""
PROGRAMS = {
    "any": f"from services.environment import prepare_process\nprepare_process()\n{LOAD}",
    "command": f"import services.cli\nservices.cli.main = lambda: exec({LOAD!r}) or 0\nservices.cli.run()",
    "training": f"import services.training\n{LOAD}",
    "tests": f"import tests\n{LOAD}",
}


def printed_by(program: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | variables,
        timeout=LIVENESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_is_set_when_libraries_load(program):
    assert printed_by(PROGRAMS[program]) == "False true 1\n"


def test_the_users_own_variables_win():
    program = PROGRAMS["any"].replace("ultralytics.utils.ONLINE, ", "")
    assert printed_by(program, YOLO_OFFLINE="false", OPENBLAS_NUM_THREADS="3") == "false 3\n"


def test_processes_started_from_here_inherit_it(monkeypatch):
    monkeypatch.delenv("YOLO_OFFLINE")
    prepare_process()
    assert os.environ["YOLO_OFFLINE"] == "true"
