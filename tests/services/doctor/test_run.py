"""The doctor as a program, at a real detector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from services.access.token_editing import add_token
from services.access.token_file import TokenEntry
from services.access.tokens import new_token, token_hash
from services.errors import Exit
from tests.certificates import Authority
from tests.ports import free_port
from tests.services.clips import SIZE
from tests.services.waiting import LIVENESS_S

pytestmark = pytest.mark.timeout(900)
DOCTOR = [sys.executable, "-m", "services.cli", "doctor"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


async def examined(*arguments: str) -> tuple[int, dict]:
    """The exit code, and what is found of each check, by name."""
    import asyncio

    program = await asyncio.create_subprocess_exec(
        *DOCTOR, *arguments, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    async with asyncio.timeout(2 * LIVENESS_S):
        output, errors = await program.communicate()
    assert errors == b""
    report = json.loads(output)
    assert report["ok"] == (program.returncode == Exit.OK)
    return program.returncode, {check["check"]: check for check in report["checks"]}


@pytest.fixture
def flags(weights, video, tmp_path):
    size = f"{SIZE[0]}x{SIZE[1]}"
    return [
        *("camera", "--model", str(weights), "--source", str(video), "--size", size, "--stream", "door"),
        *("--metrics-port", str(free_port()), "--codec", "rle", "--seconds", "1"),
    ]


async def test_a_camera_that_is_right(start_detector, flags):
    async with start_detector() as running:
        code, found = await examined(*flags, "--detector", running.url)
        assert running.detector.streams.get("door") is None
    assert {name: check["level"] for name, check in found.items() if check["level"] == "error"} == {}
    assert code == Exit.OK
    order = "limits port session kernels weights source engine detector token welcome link clock"
    assert list(found) == order.split()
    for name in ("source", "engine", "welcome", "link", "clock"):
        assert not found[name]["measured"].startswith("not checked"), found[name]


async def test_a_camera_with_a_token_over_tls(start_detector, flags, tmp_path):
    authority, tokens = Authority(tmp_path), tmp_path / "tokens.toml"
    token = new_token()
    add_token(tokens, TokenEntry(name="door", hash=token_hash(token), roles=("camera",), streams=("door",)))
    (tmp_path / "door.token").write_text(token)
    (tmp_path / "door.token").chmod(0o600)
    known = ["--tls-ca", str(authority.file), "--token-file", str(tmp_path / "door.token")]
    async with start_detector(tokens=str(tokens), tls_cert=str(authority.sign())) as running:
        url = running.url.replace("ws", "wss")
        code, found = await examined(*flags, "--detector", url, *known)
        assert (code, token in str(found)) == (Exit.OK, False)
        names = ("detector", "certificate", "token", "welcome", "link", "clock")
        assert {name: found[name]["level"] for name in names} == dict.fromkeys(names, "ok")
        code, found = await examined(*flags, "--detector", url)
        flags[flags.index("--stream") + 1] = "yard"
        _, denied = await examined(*flags, "--detector", url, *known)
    assert (denied["token"]["level"], denied["welcome"]["level"]) == ("error", "warning")
    assert denied["welcome"]["measured"].endswith("see token")
    assert code == Exit.FAILURE
    assert "give the file of who signed it as --tls-ca" in found["certificate"]["measured"]


async def test_what_is_wrong_hides_nothing_else(flags, tmp_path):
    flags[flags.index("--source") + 1] = str(tmp_path / "none.mp4")
    code, found = await examined(*flags, "--detector", f"ws://127.0.0.1:{free_port()}")
    assert code == Exit.FAILURE
    levels = {name: check["level"] for name, check in found.items()}
    assert (levels["source"], levels["detector"]) == ("error", "error")
    assert (levels["weights"], levels["engine"]) == ("ok", "ok")
    assert found["link"]["measured"].startswith("not checked")


async def test_a_detector(weights):
    code, found = await examined("detector", "--model", str(weights), "--port", str(free_port()))
    assert (code, list(found)) == (
        Exit.OK,
        ["limits", "memory", "port", "tokens", "kernels", "weights", "engine"],
    )
    code, found = await examined(
        "detector", "--model", str(weights), "--port", str(free_port()), "--fps", "100000"
    )
    assert (code, found["engine"]["level"]) == (Exit.FAILURE, "error")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once_with_what_was_found(flags, sign):
    flags[flags.index("--seconds") + 1] = "3600"
    with subprocess.Popen(
        [*DOCTOR, *flags, "--realtime", "--loop"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as program:
        assert program.stdout
        assert program.stdout.readline().startswith("ok       limits")
        for line in program.stdout:
            if "weights" in line:
                break
        program.send_signal(sign)
        output, errors = program.communicate(timeout=LIVENESS_S)
    assert errors == ""
    assert output.strip().endswith("interrupted: 7 not checked")
    assert program.returncode == Exit.FAILURE


def test_wrong_settings_are_told_as_by_the_service():
    ran = subprocess.run(
        [*DOCTOR, "camera", "--window", "0"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert ran.returncode == Exit.USAGE
    assert "--window" in ran.stderr
