"""Signals, in programs of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.services.waiting import LIVENESS_S

EARLY = """
import sys, time
from services.signals import end_on_signals
end_on_signals(sys.argv[1])
print("here", flush=True)
time.sleep(600)
"""
LATE = """
import asyncio, os, signal, sys
from services.signals import end_on_signals, run_until_stopped

async def serve():
    print("here", flush=True)
    await asyncio.Event().wait()

async def main():
    await run_until_stopped(serve(), lambda: print("drains", flush=True))

end_on_signals("json")
asyncio.run(main())
print("over", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""


RELOADING = """
import asyncio, signal, sys
from services.signals import run_until_stopped

async def reload():
    print("reloads", flush=True)
    if sys.stdin.readline() == "fail\\n":
        raise ValueError

async def serve():
    print("here", flush=True)
    await asyncio.Event().wait()

asyncio.run(run_until_stopped(serve(), lambda: None, reload))
"""

STARTING = """
import sys
from services import cli

def main():
    print("here", flush=True)
    sys.stdin.readline()
    return 0

cli.main = main
cli.run()
"""


UNCHANGED = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # who started the tests may ignore it: nohup


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, once it is here; it ends with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{UNCHANGED}\n{program}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process:
        try:
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_has_nothing_to_drain_ends_with_one_line(number):
    with started(EARLY, "auto") as process:
        process.send_signal(number)
        _, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 0
    entry = json.loads(log)
    assert (entry["event"], entry["signal"], entry["level"]) == ("ended by a signal", number.name, "info")


def test_its_line_is_text_where_logs_are():
    with started(EARLY, "text") as process:
        process.terminate()
        _, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 0
    assert log.endswith("ended by a signal signal=SIGTERM\n")


def test_the_second_signal_ends_what_drains_and_a_third_what_is_left():
    with started(LATE) as process:
        assert process.stdout
        process.terminate()
        assert process.stdout.readline() == "drains\n"
        process.terminate()
        rest, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 0
    assert rest == "drains\nover\n"
    assert json.loads(log)["event"] == "ended by a signal"


def test_a_hangup_reloads_as_often_as_it_comes():
    with started(RELOADING) as process:
        for told in ("fail", "good", "good"):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "reloads\n"
            process.stdin.write(f"{told}\n")
            process.stdin.flush()
        process.kill()


def test_a_hangup_ends_what_reloads_nothing():
    with started(LATE) as process:
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=LIVENESS_S)
    assert process.returncode == -signal.SIGHUP


@pytest.mark.parametrize(("service", "code"), [("detector", 0), ("camera", -signal.SIGHUP)])
def test_a_hangup_does_not_end_a_detector_that_is_still_starting(service, code):
    """What it would read anew it has not read yet."""
    with started(STARTING, service) as process:
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=LIVENESS_S)
    assert process.returncode == code
