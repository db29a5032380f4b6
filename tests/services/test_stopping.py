"""Services as processes that a signal ends at any moment of their start, and whose standard streams may be closed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.errors import Exit
from tests.ports import free_port

pytestmark = pytest.mark.timeout(900)
LIMIT_S = 400.0  # a whole program: only a hang takes so long
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@contextmanager
def started(*arguments: str, redirect: str = "") -> Iterator[subprocess.Popen[str]]:
    """A service, which tells on standard error what it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "services.cli", *arguments]
    if redirect:
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], is_it: Callable[[str], bool]) -> None:
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if is_it(line):
            return
    raise AssertionError("it never came: " + "".join(line for line in seen if "import time" not in line))


def events(process: subprocess.Popen[str]) -> list[str]:
    """What is logged until the process ends."""
    _, rest = process.communicate(timeout=LIMIT_S)
    lines = [line for line in rest.splitlines() if "import time:" not in line]
    return [json.loads(line)["event"] for line in lines]


def wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(url):  # noqa: S310 - our own
                return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def wait_for_connection(port: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("module", ["structlog", "pydantic_core", "numpy", "aiohttp", "onnxruntime"])
@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("detector", "--port", "0", "--model", "demo"), signal.SIGTERM),
        (("camera", "--source", "demo", "--metrics-port", "0", "--model", "demo"), signal.SIGINT),
    ],
)
def test_a_signal_while_a_service_imports_ends_it_and_is_logged(arguments, number, module):
    with started(*arguments) as process:
        read_until(process, lambda line: line.split("|")[-1].strip().partition(".")[0] == module)
        process.send_signal(number)
        assert events(process) == ["ended by a signal"]
        assert process.returncode == Exit.OK


def test_a_signal_while_the_detector_loads_stops_it(weights: Path):
    with started("detector", "--port", "0", "--model", str(weights)) as process:
        read_until(process, lambda line: '"listening"' in line)
        process.terminate()
        assert events(process)[-1] == "detector stopped"
        assert process.returncode == Exit.OK


def test_a_signal_while_the_camera_loads_stops_it(weights: Path):
    port = free_port()
    flags = ["--source", "demo", "--detector", "ws://127.0.0.1:9", "--metrics-port", str(port)]
    with started("camera", "--model", str(weights), *flags) as process:
        read_until(process, lambda line: line.rstrip().endswith("services.camera.service"))
        wait_for_answer(f"http://127.0.0.1:{port}/livez")
        process.terminate()
        assert events(process)[-1] == "camera stopped"
        assert process.returncode == Exit.OK


def test_a_service_without_standard_streams_runs_and_logs_nowhere(weights: Path):
    port = free_port()
    flags = ["--port", str(port), "--model", str(weights)]
    with started("detector", *flags, redirect="<&- >&- 2>&-") as process:
        wait_for_answer(f"http://127.0.0.1:{port}/readyz")
        process.terminate()
        assert process.wait(LIMIT_S) == Exit.OK


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_a_service_whose_log_cannot_be_written_runs(redirect: str):
    """The lightest of the services, as all have the same log and the same streams."""
    port = free_port()
    flags = ["--listen", f"127.0.0.1:{port}", "--to", "127.0.0.1:1"]
    with started("chaos", *flags, redirect=redirect) as process:
        wait_for_connection(port)
        process.terminate()
        assert process.wait(LIMIT_S) == Exit.OK
