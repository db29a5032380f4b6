"""A detector's step maps, simulated: of every n-th frame, a lag later, and only where an encoder takes them."""

from __future__ import annotations

import pytest

from codec.errors import BadStepMap
from codec.layout import TensorSpec
from codec.spec import parse_codec
from services.evaluation.feedback import Feedback
from tests.services.calibrated import make_profile

LAYOUT = (TensorSpec("4.m", (4, 8, 8)),)


class Told:
    """In the place of an encoder."""

    step_map_bytes = 1

    def __init__(self):
        self.maps = []

    def guide(self, sequence, step_map):
        self.maps.append((sequence, step_map))

    def encode(self, tensors, stamp):
        """As an encoder has it, which it has to be to be told."""

    def force_keyframe(self):
        """Likewise."""


def told_of(every, lag, measure):
    """One who is told, and who tells it what `measure` makes of a frame."""
    told = Told()
    return told, Feedback(every, lag, lambda *_: measure).run(told, LAYOUT, make_profile(LAYOUT))


@pytest.mark.parametrize(
    ("every", "lag", "expected"),
    [
        (1, 1, [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        (1, 3, [[], [], [], [0], [0, 1]]),
        (2, 2, [[], [], [0], [0], [0, 2]]),
        (4, 1, [[], [0], [0], [0], [0]]),
    ],
)
def test_a_map_comes_so_many_frames_after_its_own(every, lag, expected):
    told, run = told_of(every, lag, lambda number: bytes([number]))
    known = []
    for frame in range(5):
        run.deliver(frame)
        known.append([sequence for sequence, _ in told.maps])
        run.detect(frame, frame)
    assert known == expected
    assert all(step_map == bytes([sequence]) for sequence, step_map in told.maps)


def test_all_that_have_come_meanwhile_are_told():
    told, run = told_of(1, 2, lambda number: bytes([number]))
    for frame in range(4):
        run.detect(frame, frame)
    run.deliver(4)
    assert told.maps == [(0, b"\0"), (1, b"\1"), (2, b"\2")]


def test_a_frame_without_a_map_is_left_out():
    def fail(_):
        raise BadStepMap("an energy is not finite")

    told, run = told_of(1, 1, fail)
    for frame in range(3):
        run.deliver(frame)
        run.detect(frame, frame)
    assert told.maps == []


def test_is_for_the_feature_codec_with_a_profile():
    asked = []
    feedback = Feedback(1, 1, lambda layout, profile: asked.append((layout, profile)))
    for text in ("raw", "rle:bits=4", "feature:profile=none"):
        codec = parse_codec(text)
        assert feedback.run(codec.encoder(LAYOUT), LAYOUT, codec.profile) is None
    still = parse_codec("feature:temporal=false").with_profile(make_profile(LAYOUT))
    assert feedback.run(still.encoder(LAYOUT), LAYOUT, still.profile) is None
    codec = parse_codec("feature").with_profile(make_profile(LAYOUT))
    assert feedback.run(codec.encoder(LAYOUT), LAYOUT, codec.profile)
    assert asked == [(LAYOUT, codec.profile)]
