"""One codec along one source, by itself: keyframes, sizes, and canvases that come out late."""

from __future__ import annotations

import numpy as np
import pytest

from codec.layout import raw_bytes
from codec.spec import parse_codec
from services.evaluation.pixel_codecs import PixelCodec
from services.evaluation.runs import FeatureRun, PixelRun
from stream.network.engine import RunnableNetwork, open_network
from tests.services.clips import SIZE

CANVASES = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def network(weights) -> RunnableNetwork:
    return open_network(weights)


SEQUENCES = pytest.mark.parametrize(
    ("sequences", "keyframes"),
    [
        ((0, 0, 0, 0), [True, False, False, False]),
        ((0, 1, 2, 3), [True] * 4),
        ((5, 5, 0, 0), [True, False] * 2),
    ],
)


@SEQUENCES
def test_only_frames_of_a_sequence_share_an_encoder(network, sequences, keyframes):
    run = FeatureRun(parse_codec("rle:bits=4,temporal=true"))
    head, tail = network.head("4.m", SIZE), network.tail("4.m")
    for sequence in sequences:
        run.logits(head(CANVASES[0]), head.layout, SIZE, tail, sequence)
        run.scores.frames += 1
    assert run.scores.frame_is_key == keyframes
    assert run.scores.keyframes == sum(keyframes)
    assert run.scores.raw_bytes == 4 * raw_bytes(head.layout)
    assert 0 < run.scores.coded_bytes < run.scores.raw_bytes
    assert set(run.scores.durations.medians_ms()) == {"encode", "decode", "tail"}


@SEQUENCES
def test_every_canvas_comes_out_in_its_order(sequences, keyframes):
    """x264-medium looks ahead: nothing comes out before several canvases have gone in."""
    gray = [np.full((*SIZE, 3), level, np.uint8) for level in (40, 90, 140, 190)]
    run = PixelRun(PixelCodec("x264-medium", 10))
    decoded = []
    for canvas in run.decoded(zip(sequences, gray, strict=True)):
        run.scores.frames += 1
        decoded.append(canvas)
    assert [round(float(canvas.mean()), -1) for canvas in decoded] == [40, 90, 140, 190]
    assert run.scores.frame_is_key == keyframes
    assert min(run.scores.frame_bytes) > 0
    assert run.scores.coded_bytes == sum(run.scores.frame_bytes)
