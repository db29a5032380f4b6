"""How fast this machine is, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from services.camera.pipeline import FeaturePipeline
from services.doctor import frame_cost
from services.doctor.camera_engine import judge_camera_engine, measure_camera
from services.doctor.detector_engine import judge_detector_engine, measure_detector
from services.doctor.frame_cost import FrameCost, FrameTimer
from services.doctor.settings import DoctorCameraSettings, DoctorDetectorSettings
from services.doctor.weights import DETECTOR_HALF
from services.loading import load_network
from stream.frame import Frame
from stream.network.exported import HEAD, write_export
from stream.network.network import load_network as read_network
from stream.tasks.worker import Worker
from tests.services.clips import SIZE

COST = FrameCost({"head": 60.0, "encode": 20.0}, 40, 4000.0)  # 12.5 frames/s


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(frame_cost, "MEASURE_S", 0.01)


@pytest.fixture
def camera():
    return DoctorCameraSettings.load({"source": "demo"})


async def test_a_cameras_frames_are_measured(weights):
    size = f"{SIZE[0]}x{SIZE[1]}"
    settings = DoctorCameraSettings.load(
        {"source": "demo", "model": str(weights), "size": size, "codec": "rle"}
    )
    worker, numbers = Worker("test"), np.random.default_rng(0)
    frames = [Frame(numbers.integers(0, 255, (*SIZE, 3), np.uint8), number) for number in range(3)]
    pipeline = await FeaturePipeline.build(settings, load_network(settings), SIZE, worker)
    cost = await measure_camera(pipeline, frames)
    worker.close()
    assert list(cost.stages_ms) == ["head", "encode"]
    assert all(ms > 0 for ms in cost.stages_ms.values())
    assert cost.frames >= frame_cost.LEAST_FRAMES
    assert cost.packet_bytes > 0


def test_each_stage_is_what_it_took_of_a_frame(monkeypatch):
    times_ns = iter([0, 30 * 10**6, 40 * 10**6, 10**9, 10**9 + 10 * 10**6, 10**9 + 40 * 10**6])
    monkeypatch.setattr(frame_cost.time, "perf_counter_ns", lambda: next(times_ns))
    timer = FrameTimer()
    for packet_bytes in (1000, 3000):
        timer.begin()
        timer.lap("head")
        timer.lap("encode")
        timer.end(packet_bytes)
    cost = timer.cost
    assert (cost.stages_ms, cost.frames, cost.packet_bytes) == ({"head": 20.0, "encode": 20.0}, 2, 2000.0)
    assert cost.fps == 25.0


def test_a_detectors_frames_are_measured(weights, tmp_path):
    def measure(model):
        settings = DoctorDetectorSettings.load({"model": str(model)})
        return measure_detector(settings, load_network(settings))

    cost = measure(weights)
    assert list(cost.stages_ms) == ["decode", "tail", "nms"]
    assert all(ms > 0 for ms in cost.stages_ms.values())
    write_export(read_network(weights), "random", "4.m", tmp_path / "exported", software="test")
    (tmp_path / "exported" / HEAD).unlink()
    assert (tmp_path / "exported" / DETECTOR_HALF).is_file()
    assert measure(tmp_path / "exported").ms > 0


@pytest.mark.parametrize(
    ("wanted_fps", "told", "level"),
    [
        (None, False, "ok"),
        (10.0, True, "ok"),
        (12.0, True, "warning"),
        (25.0, False, "warning"),
        (25.0, True, "error"),
    ],
)
def test_what_is_said_of_a_camera(camera, wanted_fps, told, level):
    finding = judge_camera_engine(COST, camera, (384, 640), wanted_fps, told=told)
    assert finding.level == level
    assert "head 60.0 ms + encode 20.0 ms = 80.0 ms a frame: 12.5 frames/s at 384x640" in finding.measured


def test_a_smaller_size_is_named_that_would_do(camera):
    finding = judge_camera_engine(COST, camera, (384, 640), 25.0, told=True)
    assert finding.advice.startswith("--size 384, --effort 0")
    exact = camera.model_copy(update={"size": "384x640"})
    finding = judge_camera_engine(COST, exact, (384, 640), 25.0, told=True)
    assert finding.advice.startswith("--size 224x384, --effort 0")
    finding = judge_camera_engine(COST, camera, (384, 640), 2500.0, told=True)
    assert finding.advice.startswith("--effort 0")


@pytest.mark.parametrize(
    ("wanted_fps", "level"), [(None, "ok"), (20.0, "ok"), (24.0, "warning"), (60.0, "error")]
)
def test_what_is_said_of_a_detector(wanted_fps, level):
    settings = DoctorDetectorSettings.load({"tails": 2})
    finding = judge_detector_engine(COST, settings, "cpu", wanted_fps)
    assert (finding.level, finding.facts["fps"]) == (level, 25.0)
