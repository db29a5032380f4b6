"""A real RTSP server for tests: GStreamer's, run by the system's Python."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")

PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
for name in ("appsrc", "videoconvert", "x264enc", "h264parse", "rtph264pay"):
    assert Gst.ElementFactory.find(name), f"GStreamer has no {name}"
"""


def missing_gstreamer() -> str | None:
    """Why there is no RTSP server to run; None where there is one."""
    try:
        probe = subprocess.run(
            [SYSTEM_PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=LIVENESS_S, check=False
        )
    except OSError as error:
        return str(error)
    return probe.stderr.strip().splitlines()[-1] if probe.returncode else None


def require_gstreamer() -> None:
    """Skip where there is no RTSP server to run."""
    if reason := missing_gstreamer():
        pytest.skip(f"no RTSP server: {reason}")


class RtspServer:
    """The server process; it can be killed, frozen and started again at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    def url(self, credentials: str = "") -> str:
        return f"rtsp://{credentials}127.0.0.1:{self.port}/stream"

    async def start(self, *arguments: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON, str(SCRIPT), str(self.port), *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(LIVENESS_S):
            assert await self._process.stdout.readline() == b"ready\n"

    def send(self, sign: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, sign)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()
