"""The environment is set before libraries read it, in a process of its own: here they are loaded already."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.environment import prepare_process
from tests.paths import ROOT
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


STREAMS = """
import os, sys
closed = sys.argv[1]
from services.environment import prepare_process
prepare_process()
print("to nobody", file=sys.stderr)
print("to nobody", end="")
sys.stdin.read()
next_free = os.open(os.devnull, os.O_RDONLY)
assert next_free > 2, next_free
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(closed, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(STREAMS)
    done = subprocess.run(
        ["sh", "-c", f'"$0" "$1" x {closed}', sys.executable, program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_what_the_terminal_cannot_show_is_escaped():
    program = "from services.environment import prepare_process\nprepare_process()\nprint('é \\ud800')"
    assert printed_by(program, PYTHONIOENCODING="ascii") == "\\xe9 \\ud800\n"


GIVES_BACK = """
import sys
from services.environment import give_memory_back, prepare_process, resident_bytes
prepare_process()
before = resident_bytes()
parts = [bytearray(b"x") * 100_000 for _ in range(1000)]  # of the heap, and not mapped each by itself
held = resident_bytes()
last = bytearray(1000)  # what keeps the heap from shrinking by itself
del parts
kept = resident_bytes()
give_memory_back()
print(held - before, kept - before, resident_bytes() - before)
"""


FORGETS = """
import re
import numba
from services.environment import forget_loading

def resident_kb():
    name, total = "", 0
    for line in open("/proc/self/smaps"):
        name = line.split()[-1] if re.match("[0-9a-f]+-", line) else name
        total += int(line.split()[1]) if "llvmlite" in name and line.startswith("Rss:") else 0
    return total

def compiled():
    return numba.njit("f8(f8, i8)")(lambda x, n: sum([x * i for i in range(n)]))(0.5, 4)

first, before = compiled(), resident_kb()
forget_loading()
print(before, resident_kb(), first, compiled())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_compiler_that_has_done_its_work_leaves_memory_and_can_come_back():
    before_kb, left_kb, *results = map(float, printed_by(FORGETS).split())
    assert left_kb < before_kb - 20e3
    assert results == [3.0, 3.0]


COLLECTS = """
import gc
from services.environment import forget_loading

class Network:
    def __init__(self):
        self.itself = self

def left():
    return sum(isinstance(one, Network) for one in gc.get_objects())

gc.disable()
kept, lost = Network(), Network()
del lost
forget_loading()
looked_at = left()
del kept
forget_loading()
gc.unfreeze()
print(looked_at, left())
"""


def test_what_is_loaded_is_collected_no_more_until_something_else_is():
    assert printed_by(COLLECTS) == "0 0\n"


BREAKS_CIRCLES = """
import gc
from services.environment import give_memory_back

class Circle:
    def __init__(self):
        self.itself = self

gc.disable()  # as good as a service that makes few objects
circle = Circle()
del circle
give_memory_back()
print(sum(isinstance(one, Circle) for one in gc.get_objects()))
"""


def test_garbage_that_holds_itself_is_given_back_too():
    assert printed_by(BREAKS_CIRCLES) == "0\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_kept_until_it_is_given_back():
    held, kept, left = map(int, printed_by(GIVES_BACK).split())
    assert held > 90e6
    assert kept > 90e6
    assert left < 20e6
