"""The rest of the network, apart from any connection."""

from __future__ import annotations

import numpy as np
import pytest

from services.detector.inference import WARM_UPS, Inference
from services.detector.settings import DetectorSettings
from services.detector.tail_costs import ENOUGH
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
async def inference(weights, workers):
    settings = DetectorSettings.load({"model": str(weights), "confidence": 0.001, "max_detections": 20})
    inference = Inference(settings, workers)
    await inference.load()
    return inference


@pytest.mark.parametrize("split", ["4.m", "9"])
async def test_finishes_what_the_head_began(inference, workers, model, split):
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    clock = StageClock(0)
    tensors = TorchHead(model, split, SIZE)(image)
    inferred = inference.detect(inference.tail(split), workers.owner(), tensors, LETTERBOX, clock)
    detections = inferred.detections
    assert inferred.tail_ns > 0
    expected = detect(Unsplit(model)(image), LETTERBOX, conf=0.001, iou=0.45, max_det=20)
    assert len(detections) == len(expected) == 20
    np.testing.assert_allclose(detections.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(detections.confidence, expected.confidence, atol=1e-4)
    np.testing.assert_array_equal(detections.class_id, expected.class_id)
    assert list(clock.durations_ns) == ["queue", "tail", "nms"]


async def test_a_tail_is_made_once_and_has_run_before_the_first_frame(weights, workers, monkeypatch):
    done = []

    class Watched(OnnxTail):
        def __init__(self, session, cut):
            super().__init__(session, cut)
            done.append(("made", cut.split))

        def __call__(self, frames):
            done.append("run")
            return super().__call__(frames)

    monkeypatch.setattr("stream.network.onnx_engine.OnnxTail", Watched)
    inference = Inference(DetectorSettings.load({"model": str(weights)}), workers)
    await inference.load()
    inference.tail(DEFAULT_SPLIT)
    assert done == [("made", DEFAULT_SPLIT), *["run"] * WARM_UPS]


async def test_knows_the_tensors_of_every_split_point(inference, model, agreed):
    assert inference.layout("4.m", SIZE) == agreed
    assert inference.network.model.weights_hash == model.weights_hash
    for refuse in (inference.tail, lambda split: inference.layout(split, SIZE)):
        with pytest.raises(UnknownSplitPoint):
            refuse("99")


async def test_a_file_that_is_not_there_is_no_network(tmp_path, workers):
    inference = Inference(DetectorSettings.load({"model": str(tmp_path / "none.pt")}), workers)
    with pytest.raises(MissingWeights):
        await inference.load()


async def test_what_a_frame_costs_is_estimated_and_then_measured(inference, workers, model):
    """By the operations that are left to do, until enough frames of its kind were seen."""
    tensors = TorchHead(model, "4.m", SIZE)(np.zeros((*SIZE, 3), np.uint8))
    early, late = (inference.expected_ms(split, SIZE) for split in ("0", "17"))
    assert early > late > 0
    for _ in range(ENOUGH):
        inferred = inference.detect(
            inference.tail("4.m"), workers.owner(), tensors, Letterbox(SIZE, SIZE), StageClock(0)
        )
    assert inference.expected_ms("4.m", SIZE) == inference.costs.measured_ms(("4.m", SIZE))
    assert 0 < inference.expected_ms("4.m", SIZE) <= inferred.tail_ns / 1e6
