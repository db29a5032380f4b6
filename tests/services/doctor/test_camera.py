"""What is looked at on a camera's machine, and what one check makes of those before it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.access.token_editing import add_token
from services.access.token_file import TokenEntry
from services.access.tokens import new_token, token_hash
from services.doctor import frame_cost
from services.doctor.camera import CameraDoctor
from services.doctor.settings import DoctorCameraSettings
from tests.certificates import Authority
from tests.ports import free_port
from tests.services.clips import SIZE, write_video
from tests.services.waiting import LIVENESS_S

NOBODY = "ws://127.0.0.1:1"


@pytest.fixture
def settings(weights, video):
    def make(**given) -> DoctorCameraSettings:
        size = f"{SIZE[0]}x{SIZE[1]}"
        own = {"source": str(video), "model": str(weights), "size": size, "codec": "rle", "stream": "door"}
        return DoctorCameraSettings.load({**own, "detector": NOBODY, "seconds": 1.0, **given})

    return make


@asynccontextmanager
async def looking(settings: DoctorCameraSettings):
    """Looks at one thing by its name, and returns what was found."""
    doctor = CameraDoctor(settings)
    checks = {check.name: check for check in doctor.checks}

    async def look(*names: str):
        async with asyncio.timeout(LIVENESS_S):
            return [await checks[name].look() for name in names][-1]

    try:
        yield look
    finally:
        doctor.close()


def test_all_that_the_settings_name_is_looked_at(settings, tmp_path):
    cert = str(Authority(tmp_path).sign())
    everything = settings(
        model="yolov5n",
        metrics_port=free_port(),
        metrics_tls_cert=cert,
        mqtt="mqtt://127.0.0.1",
        fallback="local",
        record=str(tmp_path),
        detector="wss://127.0.0.1",
        tls_cert=cert,
    )
    assert [check.name for check in CameraDoctor(everything).checks] == [
        *(
            "limits",
            "port",
            "metrics",
            "session",
            "cache",
            "broker",
            "recording",
            "kernels",
            "weights",
            "source",
        ),
        *("engine", "detector", "certificate", "own cert", "token", "welcome", "link", "clock"),
    ]


async def test_what_a_folder_of_recordings_and_certificates_are_looked_at_for(settings, tmp_path):
    authority = Authority(tmp_path)
    names = {"metrics_tls_cert": str(authority.sign()), "metrics_port": free_port()}
    own = str(authority.sign("door.example", file="own.pem"))
    given = settings(
        **names,
        metrics_host="127.0.0.1",
        record=str(tmp_path),
        record_mib=2**30,
        tls_cert=own,
        detector="wss://127.0.0.1:1",
    )
    async with looking(given) as look:
        recording = await look("recording")
        assert (recording.level, f"and may need {2**30}" in recording.measured) == ("warning", True)
        assert (await look("metrics")).facts["matches"] == ["127.0.0.1"]
        assert own in (await look("own cert")).measured


@pytest.fixture
def briefly(monkeypatch):
    monkeypatch.setattr(frame_cost, "MEASURE_S", 0.01)


async def test_the_rate_that_is_wanted_is_the_one_that_was_told_or_a_live_sources(
    settings, tmp_path, briefly
):
    clip = write_video(tmp_path / "clip.avi", 200, fps=50.0)
    async with looking(settings(source=str(clip))) as look:
        engine = await look("weights", "source", "engine")
    assert (engine.level, engine.facts["wanted_fps"]) == ("ok", None)  # a file waits for whoever reads it
    async with looking(settings(source=str(clip), realtime=True, seconds=2.0)) as look:
        source, engine = await look("weights", "source"), await look("engine")
    assert source.facts["fps"] is not None
    assert engine.facts["wanted_fps"] == pytest.approx(source.facts["fps"], abs=1e-3)
    async with looking(settings(source=str(clip), realtime=True, fps=1e5)) as look:
        engine = await look("weights", "source", "engine")
    assert (engine.level, engine.facts["wanted_fps"]) == ("error", 1e5)


async def test_a_detector_that_is_not_ready_is_asked_for_nothing_else(start_detector, settings, briefly):
    async with start_detector() as running, looking(settings(detector=running.url)) as look:
        running.detector.ready.clear()
        assert (await look("weights", "source", "engine", "detector")).level == "warning"
        for name in ("token", "welcome", "link", "clock"):
            assert (await look(name)).measured.startswith("not checked"), name


async def test_a_token_that_others_may_read_is_still_one(start_detector, settings, tmp_path, briefly):
    tokens, token, file = tmp_path / "tokens.toml", new_token(), tmp_path / "door.token"
    add_token(tokens, TokenEntry(name="door", hash=token_hash(token), roles=("camera",), streams=("door",)))
    file.write_text(token)
    file.chmod(0o644)
    async with start_detector(tokens=str(tokens)) as running:
        given = settings(detector=running.url, token_file=str(file), insecure=True)
        async with looking(given) as look:
            assert (await look("weights", "source", "engine", "detector", "token")).level == "warning"
            assert (await look("welcome")).level == "ok"
