"""The embedded network finds on the demo's own scenes what a person sees there, through the codec and both halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codec.packet import Stamp
from codec.spec import CodecSpec
from services.config import DEFAULT_CODEC, DetectorConfig
from services.training.pictures import CLASSES
from services.training.scenes import count, objects_in
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.model import Model, load_model
from stream.nms import detect
from stream.split import Head, Tail
from stream.virtual_camera import SCENES, VirtualCamera
from stream.weights import DEMO, find_weights


@pytest.fixture(scope="module")
def network() -> Model:
    torch.set_num_threads(1)
    return load_model(find_weights(DEMO))


class SplitDetector:
    """Camera and detector without the wire between them, with the settings that both have by default."""

    def __init__(self, network: Model, canvas: tuple[int, int] = (480, 640)) -> None:
        settings = DetectorConfig.load({})
        self.letterbox = Letterbox(canvas, canvas)
        self.head, self.tail = Head(network, size=canvas), Tail(network)
        codec = CodecSpec.parse(DEFAULT_CODEC)
        self.encoder, self.decoder = codec.encoder(self.head.layout), codec.decoder(self.head.layout)
        self.thresholds = {"conf": settings.confidence, "iou": settings.iou}
        self.frames = 0

    def __call__(self, image) -> Detections:
        packet = self.encoder.encode(self.head(image), Stamp(self.frames, 0, *self.letterbox.frame))
        self.frames += 1
        prediction = self.tail(self.decoder.decode(packet.data).tensors)
        return detect(prediction, self.letterbox, **self.thresholds)


def test_is_small_and_knows_people_and_vehicles(network):
    assert find_weights(DEMO).stat().st_size <= 4e6
    assert network.names == CLASSES
    assert find_weights(DEMO).with_suffix(".md").is_file()


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("seed", [0, 11])
def test_finds_what_a_person_sees(network, scene, seed):
    """Every clearly visible person and the bus in 9 of 10 frames, one false box in 10 frames at most."""
    counted = count(SplitDetector(network), VirtualCamera(scene=scene, seed=seed), range(0, 40 * 11, 11))
    assert counted.objects >= counted.frames  # there was something to see
    assert counted.complete >= 0.9 * counted.frames, counted
    assert counted.false <= 0.1 * counted.frames, counted


def test_the_count_counts():
    """A detector that sees nothing, one that sees all, and one that sees it twice."""
    camera = VirtualCamera(scene="tour")
    frames = range(0, 300, 30)
    truth = iter([objects_in(camera, number) for number in frames] * 2)

    def oracle(times: int):
        def look(_image) -> Detections:
            kinds, boxes, _ = next(truth)
            return Detections(
                np.tile(boxes, (times, 1)), np.ones(times * len(kinds), np.float32), np.tile(kinds, times)
            )

        return look

    def blind(_image) -> Detections:
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    nothing, everything, twice = (count(look, camera, frames) for look in (blind, oracle(1), oracle(2)))
    assert (nothing.complete, nothing.found, nothing.false) == (0, 0, 0)
    assert nothing.objects > 20
    assert (everything.complete, everything.found, everything.false) == (10, nothing.objects, 0)
    assert twice.complete == 10
    assert twice.false >= nothing.objects
