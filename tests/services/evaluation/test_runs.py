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


@pytest.mark.parametrize(("consecutive", "keyframes"), [(True, 1), (False, 4)])
def test_only_consecutive_frames_share_an_encoder(network, consecutive, keyframes):
    run = FeatureRun(parse_codec("rle:bits=4,temporal=true"), consecutive)
    head, tail = network.head("4.m", SIZE), network.tail("4.m")
    for canvas in CANVASES[[0, 0, 0, 0]]:
        run.logits(head(canvas), head.layout, SIZE, tail)
        run.scores.frames += 1
    assert run.scores.keyframes == keyframes
    assert run.scores.raw_bytes == 4 * raw_bytes(head.layout)
    assert 0 < run.scores.coded_bytes < run.scores.raw_bytes
    assert set(run.scores.durations.medians_ms()) == {"encode", "decode", "tail"}


@pytest.mark.parametrize(("consecutive", "keyframes"), [(True, 1), (False, 4)])
def test_every_canvas_comes_out_in_its_order(consecutive, keyframes):
    """x264-medium looks ahead: nothing comes out before several canvases have gone in."""
    gray = [np.full((*SIZE, 3), level, np.uint8) for level in (40, 90, 140, 190)]
    run = PixelRun(PixelCodec("x264-medium", 10), consecutive)
    decoded = []
    for canvas in run.decoded(gray):
        run.scores.frames += 1
        decoded.append(canvas)
    assert [round(float(canvas.mean()), -1) for canvas in decoded] == [40, 90, 140, 190]
    assert run.scores.keyframes == keyframes
    assert run.scores.coded_bytes > 0
