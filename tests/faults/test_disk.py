"""A full disk: what the services write beside their work is given up, and costs no frame."""

from __future__ import annotations

import errno
import os

from structlog.testing import capture_logs

from tests.faults.harness import MOVING, detecting, rig
from tests.services.waiting import until


async def test_a_camera_that_can_keep_nothing_takes_its_stream_back(monkeypatch, tmp_path):
    """Simulated: no file takes a byte. Its detector still holds the dead connection that it replaces."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where no earlier camera has kept anything
    monkeypatch.setattr(os, "pwrite", full)
    with capture_logs() as logs:
        async with (
            detecting() as detector,
            rig(detector, MOVING) as one,
            one.trouble(
                "disk full, then half-open", 1.0, ("connected",), "the session is kept in memory"
            ) as outcome,
        ):
            switch = one.proxy.begin("half-open:side=server")
            await until(lambda: switch.record.count)
            outcome.over()
    [told] = (line for line in logs if line["event"] == "no session is kept over a restart")
    assert "No space left" in told["reason"]
    ends = [line["code"] for line in logs if line["event"] == "session ended"]
    assert ends[0] == 4430
