"""One camera's connection to a detector, over real sockets: every frame is detected on, and rightly."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
import pytest

from codec.errors import CorruptPacket, MissingReference, ReferenceMismatch, TruncatedPacket
from codec.packet import Stamp
from codec.spec import parse_codec
from services.detector.connection import reject_reason
from stream.letterbox import Letterbox
from stream.session.close_codes import CloseCode
from stream.session.messages import REJECT_REASONS
from stream.torch_network.model import load_model
from stream.torch_network.nms import detect
from stream.torch_network.split import Unsplit
from tests.services.clips import FRAMES, SIZE
from tests.services.detector.peers import answer, linked
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


async def test_every_frame_of_a_file_is_detected_once_and_in_order(start_detector, make_camera):
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(running.url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        await until(lambda: len(messages) == FRAMES)
    assert await subscription == CloseCode.GOING_AWAY
    assert [message["sequence"] for message in messages] == list(range(FRAMES))
    assert camera.statistics.frame_counts.captured == camera.statistics.frame_counts.detected == FRAMES
    assert camera.statistics.frame_counts.in_flight == 0
    assert not camera.statistics.frame_counts.dropped
    assert camera.statistics.keyframes["first"] == 1
    assert camera.statistics.totals.detections == sum(len(message["predictions"]) for message in messages) > 0


async def test_detections_are_those_of_the_unsplit_network(start_detector, make_camera, weights, video):
    """With the raw codec nothing is lost on the way: head, wire and tail give what one network gives."""
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        await asyncio.wait_for(make_camera(running.url, codec="raw").run(), LIVENESS_S)
        await until(lambda: len(messages) == FRAMES)
    await subscription
    model = load_model(weights)
    unsplit = Unsplit(model)
    capture = cv2.VideoCapture(str(video))
    for message in messages:
        good, image = capture.read()
        assert good
        expected = detect(unsplit(image), Letterbox(SIZE, SIZE), conf=0.001)
        assert message["image"] == {"width": SIZE[1], "height": SIZE[0]}
        assert len(message["predictions"]) == len(expected) > 0
        for prediction, box, confidence, class_id in zip(
            message["predictions"], expected.boxes, expected.confidence, expected.class_id, strict=True
        ):
            left, top, right, bottom = box
            assert prediction["x"] == pytest.approx((left + right) / 2, abs=0.01)
            assert prediction["y"] == pytest.approx((top + bottom) / 2, abs=0.01)
            assert prediction["width"] == pytest.approx(right - left, abs=0.01)
            assert prediction["height"] == pytest.approx(bottom - top, abs=0.01)
            assert prediction["confidence"] == pytest.approx(confidence, abs=1e-4)
            assert prediction["class_id"] == class_id
            assert prediction["class"] == model.names[class_id]


async def test_boxes_are_in_pixels_of_the_original_picture(start_detector, make_camera, tmp_path):
    """A picture of another shape than the canvas is letterboxed, and its boxes are brought back."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.random.default_rng(1).integers(0, 255, (200, 150, 3), np.uint8))
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        await asyncio.wait_for(make_camera(running.url, source=str(folder)).run(), LIVENESS_S)
        await until(lambda: messages)
    await subscription
    assert messages[0]["image"] == {"width": 150, "height": 200}
    assert messages[0]["predictions"]
    for box in messages[0]["predictions"]:
        assert box["width"] / 2 - 0.1 <= box["x"] <= 150 - box["width"] / 2 + 0.1
        assert box["height"] / 2 - 0.1 <= box["y"] <= 200 - box["height"] / 2 + 0.1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CorruptPacket("its checksum"), "corrupt"),
        (TruncatedPacket(10, 2), "corrupt"),
        (MissingReference(3, None), "missing_reference"),
        (ReferenceMismatch(1, 2), "reference_mismatch"),
        (RuntimeError("out of memory"), "error"),
    ],
)
def test_every_error_has_its_reason(error, reason):
    assert reject_reason(error) == reason


@pytest.mark.parametrize(
    ("announced", "reason"), [({"reject_reasons": REJECT_REASONS}, "reference_mismatch"), ({}, "corrupt")]
)
async def test_a_reference_that_differs_is_rejected(start_detector, make_hello, agreed, announced, reason):
    """The camera's and the detector's frames before it differ; an older camera does not know the reason."""
    codec = parse_codec("feature:profile=none")
    numbers = np.random.default_rng(0)
    tensors, others = (
        {spec.name: numbers.normal(size=spec.shape).astype(np.float32) for spec in agreed} for _ in range(2)
    )
    encoder = codec.encoder(agreed)
    encoder.encode(tensors, Stamp(0, 0, *SIZE))  # which the detector does not get
    difference = encoder.encode(tensors, Stamp(1, 1, *SIZE))
    assert not difference.keyframe
    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello(codec=str(codec), **announced).text())
        assert (await answer(link))["type"] == "welcome"
        await link.send(codec.encoder(agreed).encode(others, Stamp(0, 0, *SIZE)).data)
        assert (await answer(link))["type"] == "ack"
        await link.send(difference.data)
        reject = await answer(link)
        assert (reject["type"], reject["reason"]) == ("reject", reason)
        assert (await answer(link))["type"] == "keyframe"
        sample = running.detector.statistics.metrics.registry.get_sample_value
        counts = {
            reason: sample("splitcast_detector_frames_rejected_total", {"reason": reason})
            for reason in REJECT_REASONS
        }
    assert counts == dict.fromkeys(REJECT_REASONS, 0) | {"reference_mismatch": 1}


async def test_a_frame_that_the_tail_fails_on_costs_one_frame(
    start_detector, make_hello, encode, monkeypatch
):
    """The detector's reference is good all the same: it asks for no keyframe, and takes the next difference."""

    def fail(*_):
        raise RuntimeError("out of memory")

    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello().text())
        await answer(link)
        with monkeypatch.context() as broken:
            broken.setattr(running.detector.inference, "detect", fail)
            await link.send(encode(0))
            assert await answer(link) == {"type": "reject", "reason": "error", "detail": "out of memory"}
        await link.send(encode(1))
        ack = await answer(link)
        assert (ack["type"], ack["sequence"]) == ("ack", 1)
        assert ack["stages_ns"].keys() == {"queue", "decode", "tail", "nms", "publish"}
