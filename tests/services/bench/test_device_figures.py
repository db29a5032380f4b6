"""What one engine computes beside another."""

from __future__ import annotations

import numpy as np
import pytest

from services.bench.device_figures import check, measure
from stream.network.network import random_network
from stream.network.onnx_engine import OnnxNetwork

SIZE = (64, 96)
PICTURES = np.random.default_rng(0).integers(0, 255, (2, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def network():
    return OnnxNetwork(random_network("yolov5n"))


def test_a_network_agrees_with_itself(network):
    row = check("same", network, network, "4.m", PICTURES)
    assert (row.network, row.split, row.head, row.logits, row.agreement) == ("same", "4.m", 0, 0, 1)


def test_another_network_does_not(network):
    row = check("other", OnnxNetwork(random_network("yolov5n", seed=1)), network, "4.m", PICTURES)
    assert row.head > 0.1
    assert row.logits > 0.1
    assert row.agreement < 0.5


class CountingTail:
    """Counts the frames of each call."""

    split, crossing = "4.m", ("4.m",)

    def __init__(self):
        self.calls = []

    def __call__(self, frames):
        self.calls.append(list(frames))
        return []


def test_a_tail_gets_whole_batches_whatever_was_recorded():
    tail = CountingTail()
    frames = [{"number": number} for number in range(3)]
    row = measure("float32", tail, frames, batch=5, seconds=1e-4)
    assert [frame["number"] for frame in tail.calls[0]] == [0, 1, 2, 0, 1]
    assert {len(call) for call in tail.calls} == {5}
    assert len(tail.calls) >= 2
    assert (row.batch, row.split) == (5, "4.m")
    assert row.fps > 0
