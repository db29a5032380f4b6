"""A camera of the test's own, which may say anything: what it needs to agree with the detector of `start_detector`."""

from __future__ import annotations

import time

import numpy as np
import pytest

from codec.packet import Stamp
from codec.spec import parse_codec
from stream.network.cut import layout
from stream.network.model import load_model
from stream.session.camera import tensor_shapes
from stream.session.messages import Clock, Hello
from tests.services.clips import SIZE


@pytest.fixture(scope="session")
def model(weights):
    return load_model(weights)


@pytest.fixture(scope="session")
def agreed(model):
    """The tensors that cross."""
    return layout(model.graph, "4.m", SIZE)


@pytest.fixture
def make_hello(model, agreed):
    def make(**changes) -> Hello:
        fields = {
            "stream": "door",
            "model": "random",
            "weights": model.weights_hash,
            "split": "4.m",
            "canvas": SIZE,
            "tensors": tensor_shapes(agreed),
            "codec": "rle:bits=4,temporal=true",
            "clock": Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
        }
        return Hello(**fields | changes)

    return make


@pytest.fixture
def encode(agreed):
    """Packets of random tensors, in order."""
    encoder = parse_codec("rle:bits=4,temporal=true").encoder(agreed)
    numbers = np.random.default_rng(0)
    tensors = {spec.name: numbers.normal(size=spec.shape).astype(np.float32) for spec in agreed}

    def encode(sequence: int, keyframe: bool = False) -> bytes:
        if keyframe:
            encoder.force_keyframe()
        return encoder.encode(tensors, Stamp(sequence, time.monotonic_ns(), *SIZE)).data

    return encode
