"""The rest of the network, apart from any connection."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from services.detector.inference import Inference
from services.detector.settings import DetectorSettings
from stream.detections import Detections
from stream.errors import MissingWeights, UnknownSplitPoint
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.names import DEFAULT_SPLIT
from stream.network.onnx_engine import OnnxTail
from stream.torch_network.nms import detect
from stream.torch_network.split import TorchHead, Unsplit
from tests.services.clips import SIZE

LETTERBOX = Letterbox((200, 150), SIZE)


@pytest.fixture
async def inference(weights):
    settings = DetectorSettings.load({"model": str(weights), "confidence": 0.001, "max_detections": 20})
    inference = Inference(settings)
    await inference.load()
    yield inference
    inference.close()


@pytest.mark.parametrize("split", ["4.m", "9"])
async def test_finishes_what_the_head_began(inference, model, split):
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    clock = StageClock(0)
    inference.prepare(split)
    detections = await inference.detect(split, TorchHead(model, split, SIZE)(image), LETTERBOX, clock)
    expected = detect(Unsplit(model)(image), LETTERBOX, conf=0.001, iou=0.45, max_det=20)
    assert len(detections) == len(expected) == 20
    np.testing.assert_allclose(detections.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(detections.confidence, expected.confidence, atol=1e-4)
    np.testing.assert_array_equal(detections.class_id, expected.class_id)
    assert list(clock.durations_ns) == ["queue", "tail", "nms"]


async def test_frames_of_several_cameras_wait_for_each_other(inference, model):
    image = np.zeros((*SIZE, 3), np.uint8)
    tensors = {}
    for split in ("4.m", "9"):
        inference.prepare(split)
        tensors[split] = TorchHead(model, split, SIZE)(image)
    assert inference.queue_length == 0

    async def in_turn(split: str) -> Detections:
        async with inference.turn():
            return await inference.detect(split, tensors[split], LETTERBOX, StageClock(0))

    frames = [asyncio.ensure_future(in_turn(split)) for split in ("4.m", "9", "4.m", "9")]
    await asyncio.sleep(0)  # all have begun, none has been answered
    assert inference.queue_length == 4
    first, *others = await asyncio.gather(*frames)
    assert inference.queue_length == 0
    for other in others:
        np.testing.assert_allclose(other.boxes, first.boxes, atol=1e-3)


async def test_a_tail_is_made_once_and_has_run_before_the_first_frame(weights, monkeypatch):
    done = []

    class Watched(OnnxTail):
        def __init__(self, session, cut):
            super().__init__(session, cut)
            done.append(("made", cut.split))

        def __call__(self, frames):
            done.append("run")
            return super().__call__(frames)

    monkeypatch.setattr("stream.network.onnx_engine.OnnxTail", Watched)
    inference = Inference(DetectorSettings.load({"model": str(weights)}))
    await inference.load()
    inference.prepare(DEFAULT_SPLIT)
    inference.close()
    assert done == [("made", DEFAULT_SPLIT), "run"]


async def test_knows_the_tensors_of_every_split_point(inference, model, agreed):
    assert inference.layout("4.m", SIZE) == agreed
    assert inference.network.model.weights_hash == model.weights_hash
    for refuse in (inference.prepare, lambda split: inference.layout(split, SIZE)):
        with pytest.raises(UnknownSplitPoint):
            refuse("99")


async def test_a_file_that_is_not_there_is_no_network(tmp_path):
    inference = Inference(DetectorSettings.load({"model": str(tmp_path / "none.pt")}))
    with pytest.raises(MissingWeights):
        await inference.load()
    inference.close()
