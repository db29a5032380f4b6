"""A detector in a process of its own."""

from __future__ import annotations

import os
import signal
from multiprocessing.context import SpawnProcess

import pytest

from services.camera.settings import CameraSettings
from services.commands.loopback import OPEN_CAMERA, OPEN_DETECTOR, local_detector
from services.detector.settings import DetectorSettings


class StartedHere(Exception):
    """The moment at which a real process would have been started."""


async def test_ctrl_c_while_the_detector_starts_is_not_lost(monkeypatch):
    """The new process does not hear it, and this one has to."""
    heard, held = [], []

    def start(_process: SpawnProcess) -> None:
        held.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))  # which it inherits
        os.kill(os.getpid(), signal.SIGINT)
        raise StartedHere

    monkeypatch.setattr(SpawnProcess, "start", start)
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        with pytest.raises(StartedHere):
            async with local_detector(DetectorSettings.load({"port": 0})):
                pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert held == [True]
    assert heard == [signal.SIGINT]


def test_what_is_there_for_this_process_alone_heeds_no_environment(monkeypatch):
    for name, value in (
        ("HOST", "0.0.0.0"),
        ("TLS_CERT", "cert.pem"),
        ("TLS_KEY", "key.pem"),
        ("TOKENS", "x.toml"),
    ):
        monkeypatch.setenv(f"SPLITCAST_{name}", value)
    detector = DetectorSettings.load({"port": 0, **OPEN_DETECTOR})
    assert (detector.host, detector.tls_cert, detector.tokens) == ("127.0.0.1", None, None)
    camera = CameraSettings.load({"source": "demo", **OPEN_CAMERA})
    assert (camera.tls_cert, camera.tls_key) == (None, None)
