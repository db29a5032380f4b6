"""The embedded network finds on the demo's own scenes what a person sees there, through the codec and both halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.training.pictures import CLASSES
from services.training.scenes import SplitDetector, count, objects_in
from stream.detections import Detections
from stream.network.download import find_weights
from stream.network.names import DEMO
from stream.sources.virtual_camera import SCENES, VirtualCamera
from stream.torch_network.model import Model, load_model


@pytest.fixture(scope="module")
def network() -> Model:
    torch.set_num_threads(1)
    return load_model(find_weights(DEMO))


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
