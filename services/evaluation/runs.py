"""One codec on its way along one source: what comes out of it, frame by frame, and what it took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import TypedDict

from codec.interface import Decoder, Encoder
from codec.layout import FloatArray, Layout, raw_bytes
from codec.packet import Stamp
from codec.spec import Codec
from services.evaluation.feedback import Feedback, FeedbackRun
from services.evaluation.pixel_codecs import Canvas, Coder, PixelCodec
from services.evaluation.scores import Scores
from stream.detections import Detections
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import Tail
from stream.network.levels import Levels, Logits


class Search(TypedDict):
    """Which detections are looked for, as `detect` is told."""

    conf: float
    iou: float
    max_det: int
    multi_label: bool
    max_candidates: int


SCORABLE: Search = {
    "conf": 0.001,
    "iou": 0.6,
    "max_det": 300,
    "multi_label": True,
    "max_candidates": 30_000,
}
"""Every detection that can count for average precision, with YOLOv5's settings for measuring it."""


class FeatureRun:
    """One codec of tensors on its way along one source."""

    def __init__(self, codec: Codec, feedback: Feedback | None = None) -> None:
        self.codec = codec
        self.scores = Scores()
        self._feedback = feedback
        self._maps: FeedbackRun | None = None  # of the present encoder
        self._sequence: int | None = None
        self._ends: tuple[Encoder, Decoder] | None = None

    def logits(
        self,
        tensors: Mapping[str, FloatArray],
        layout: Layout,
        frame: tuple[int, int],
        tail: Tail,
        sequence: int,
    ) -> Logits:
        """The network's logits from one frame's tensors after coding; `frame` is (H, W) of the picture in pixels.

        The frames of a sequence share encoder and decoder; the next one gets new ones, and begins with a keyframe.
        """
        if self._ends is None or sequence != self._sequence:
            self._ends, self._sequence = (self.codec.encoder(layout), self.codec.decoder(layout)), sequence
            if self._feedback:
                self._maps = self._feedback.run(self._ends[0], layout, self.codec.profile)
        encoder, decoder = self._ends
        scores = self.scores
        if self._maps:
            self._maps.deliver(scores.frames)
        clock = StageClock(time.monotonic_ns())
        packet = encoder.encode(tensors, Stamp(scores.frames, 0, *frame))
        clock.lap("encode", time.monotonic_ns())
        decoded = decoder.decode(packet.data)
        clock.lap("decode", time.monotonic_ns())
        (logits,) = tail([decoded.tensors])
        clock.lap("tail", time.monotonic_ns())
        scores.durations.add(clock.durations_ns)
        scores.add_packet(scores.frames, len(packet.data), decoded.header.keyframe)
        scores.raw_bytes += raw_bytes(layout)
        if self._maps:
            self._maps.detect(decoded.header.sequence, decoded.tensors)
        return logits


class PixelRun:
    """One codec of pixels on its way along one source."""

    def __init__(self, codec: PixelCodec) -> None:
        self.codec = codec
        self.scores = Scores()

    def decoded(self, canvases: Iterable[tuple[int, Canvas]]) -> Iterator[Canvas]:
        """The canvases after coding, in their order, each given with its sequence.

        Those of a sequence share a coder, and one of them may come out only after others have gone in.
        """
        coder: Coder | None = None
        first = 0  # frame that the coder was given first
        together = False
        for number, (given, following) in enumerate(pairwise(chain(canvases, [None]))):
            assert given
            sequence, canvas = given
            last = following is None or following[0] != sequence
            together |= not last
            if coder is None:
                coder, first = self.codec.coder((canvas.shape[0], canvas.shape[1])), number
            yield from self._code(coder, first, canvas, last)
            if last:
                coder = None
        if together and self.codec.format.delayed:
            self.scores.durations.spread_over(self.scores.frames)

    def _code(self, coder: Coder, first: int, canvas: Canvas, last: bool) -> list[Canvas]:
        scores = self.scores
        clock = StageClock(time.monotonic_ns())
        packed = coder.encode(canvas)
        if last:
            packed += coder.encode(None)
        clock.lap("encode", time.monotonic_ns())
        decoded = [image for packet in packed for image in coder.decode(packet)]
        if last:
            decoded += coder.decode(None)
        clock.lap("decode", time.monotonic_ns())
        scores.durations.add(clock.durations_ns)
        for packet in packed:
            scores.add_packet(first + packet.number, len(packet.data), packet.keyframe)
        return decoded


def scorable_detections(logits: Logits, levels: Levels, letterbox: Letterbox) -> Detections:
    """Every detection of a picture that can count for average precision."""
    return detect(logits, levels, letterbox, **SCORABLE)
