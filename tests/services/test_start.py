"""What a command loads before it runs: settings and help need no kernel, no network, no picture and no socket."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.cli import COMMANDS

HEAVY = {
    "PIL", "aiohttp", "av", "cv2", "matplotlib", "numba", "onnx", "onnxruntime", "prometheus_client", "scipy", "torch",
    "torchvision", "ultralytics",
}  # fmt: skip
LIGHT = [
    name
    for name in COMMANDS
    if name.split()[-1] not in {"camera", "detector", "record", "advise", "evaluate"}
]  # know no codec


def loaded_by(statement):
    """Modules of other projects in a process that has run the statement."""
    program = f"import sys; {statement}; print(*{HEAVY | {'numpy'}} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(ran.stdout.split("\n")[-2].split())


def asking_for_help(names):
    return f"""
from contextlib import suppress
from services.cli import main
for words in {[[*name.split(), "--help"] for name in names]}:
    with suppress(SystemExit):
        main(words)
"""


def test_help_loads_nothing_of_others():
    assert loaded_by(f"exec('''{asking_for_help(['', *LIGHT])}''')") == set()


def test_help_of_what_knows_codecs_loads_none_of_their_kernels():
    assert loaded_by(f"exec('''{asking_for_help(COMMANDS)}''')") <= {"numpy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "ws://127.0.0.1:1", "--types", "stream"],
        ["camera", "--source", "demo", "--codec", "feature:quality=7", "--effort", "1", "--size", "384x640"],
        ["detector", "--port", "0", "--split", "4.m"],
        ["encode", "in.npz", "out.spc", "--codec", "rle:bits=3"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_settings_are_checked_before_anything_heavy_is_loaded(arguments):
    assert loaded_by(f"from services.cli import parse; parse({arguments})") <= {"numpy"}


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("camera", {"services.detector", "av", "pooch", "torch"}),
        ("detector", {"services.camera", "stream.sources", "av", "cv2", "pooch", "torch"}),
    ],
)
def test_a_service_loads_nothing_of_the_other(program, without):
    """A camera opens no video file, and a detector no picture; `av`, `cv2` and the like are for who does."""
    blind = f"print(*{without} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, services.commands.{program}; {blind}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.split() == []
