"""A detector in a process of its own."""

from __future__ import annotations

import os
import signal
from multiprocessing.context import SpawnProcess

import pytest

from services.camera.settings import CameraSettings
from services.commands.loopback import OPEN_CAMERA, OPEN_DETECTOR, local_detector
from services.detector.settings import DetectorSettings
from tests.ports import free_port


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


async def test_a_usual_port_is_taken_where_it_is_free():
    """By whoever listens first: of two that start together one gets another."""
    usual = free_port()
    settings = DetectorSettings.load({"port": 0, "model": "demo", **OPEN_DETECTOR})
    async with local_detector(settings, usual) as first, local_detector(settings, usual) as second:
        assert first == f"ws://127.0.0.1:{usual}"
        assert second not in (first, "ws://127.0.0.1:0")
