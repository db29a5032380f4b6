"""Blocks and levels: the slow coder writes the same bytes and reads the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.feature.transform import STEPS, block_steps
from tests.codec import reference_feature as reference
from tests.codec.feature.coded_frames import Frame, coded_frames, read, write
from tests.codec.reference_feature import KEY


@given(coded_frames())
def test_what_is_written_is_read(frame):
    data, written = write(frame)
    blocks, levels, contexts, position = read(frame, data)
    assert np.array_equal(blocks.changes, frame.changes)
    assert np.array_equal(blocks.coded, frame.coded)
    assert np.array_equal(blocks.vectors, frame.vectors)
    assert np.array_equal(blocks.sharp, frame.sharp)
    assert np.array_equal(levels.levels, frame.levels)
    assert position - 8 <= len(data) <= position
    for k, f, b in zip(*np.nonzero(levels.levels), strict=True):
        assert levels.lasts[k, b] >= f
    if frame.coded.any():
        for ours, theirs in zip(written, contexts, strict=True):
            assert np.array_equal(ours, theirs)


@given(coded_frames())
@settings(max_examples=40)
def test_the_slow_functions_read_the_same(frame):
    data, contexts = write(frame)
    state, bits = frame.state(), reference.RangeDecoder(data)
    reference.read_blocks(bits, state, frame.kind)
    levels, widths = reference.read_levels(bits, state, frame.kind, frame.frame_step)
    assert state.changes == frame.changes.tolist()
    assert state.coded == frame.coded.astype(bool).tolist()
    assert [list(vector) for vector in state.vectors] == frame.vectors.tolist()
    assert state.sharp == frame.sharp.tolist()
    assert np.array_equal(levels, frame.levels.transpose(0, 2, 1))
    assert widths == STEPS[block_steps(frame.frame_step, frame.changes)].tolist()
    assert state.contexts == contexts.probabilities.tolist()
    assert state.alphabets == contexts.distributions.tolist()
    assert [alphabet.met for alphabet in state.alphabets] == contexts.met.tolist()
    assert state.energy == contexts.energy.tolist()
    if frame.coded.any():
        assert state.sums == contexts.sums.tolist()


class Dictated:
    """A choice that says again what was read."""

    def __init__(self, data):
        self.values = []
        decoder = reference.RangeDecoder(data)
        self.bit = lambda context: self._keep(decoder.bit(context))
        self.symbol = lambda alphabet: self._keep(decoder.symbol(alphabet))
        self.bits = lambda count: self._keep(decoder.bits(count))

    def _keep(self, value):
        self.values.append(value)
        return value


@given(coded_frames())
@settings(max_examples=40)
def test_the_slow_coder_writes_the_same_bytes(frame):
    """Carries, and the shortest end, included."""
    data, _ = write(frame)
    state, dictated = frame.state(), Dictated(data)
    reference.read_blocks(dictated, state, frame.kind)
    reference.read_levels(dictated, state, frame.kind, frame.frame_step)
    values = iter(dictated.values)
    writer, state = reference.RangeWriter(lambda context, count: next(values)), frame.state()
    reference.read_blocks(writer, state, frame.kind)
    reference.read_levels(writer, state, frame.kind, frame.frame_step)
    assert writer.finish() == data


@given(coded_frames(), st.integers(0, 400))
def test_an_end_of_room_is_told_and_not_written_over(frame, room):
    data, _ = write(frame)
    written = write(frame, room)
    if room >= len(data) + 8:
        assert written[0] == data
    elif room < len(data):
        assert written is None
    else:
        assert written is None or written[0] == data


@given(st.booleans(), st.integers(0, 2**32), st.binary(max_size=120))
@settings(max_examples=60)
def test_noise_is_read_by_both_alike(keyframe, seed, noise):
    frame = Frame(seed, keyframe)
    state, bits = frame.state(), reference.RangeDecoder(noise)
    result = read(frame, noise)
    try:
        reference.read_blocks(bits, state, frame.kind)
        expected, _ = reference.read_levels(bits, state, frame.kind, frame.frame_step)
    except reference.Refused:
        assert result is None
        return
    if result is None:  # stopped early, where more than 8 bytes beyond the end were read
        assert bits.position > len(noise) + 8
        return
    blocks, levels, contexts, position = result
    assert (state.changes, state.coded) == (blocks.changes.tolist(), blocks.coded.astype(bool).tolist())
    assert [list(vector) for vector in state.vectors] == blocks.vectors.tolist()
    assert state.sharp == blocks.sharp.tolist()
    assert np.array_equal(expected, levels.levels.transpose(0, 2, 1))
    assert state.contexts == contexts.probabilities.tolist()
    assert state.alphabets == contexts.distributions.tolist()
    assert position == bits.position


@pytest.mark.parametrize(
    "start", [b"\xff" * 8, b"\xff" * 40, b"\xff" * 7 + b"\xfe", b"\x80" + b"\0" * 20, b""]
)
def test_codes_that_no_encoder_writes_are_read_by_both_alike(start):
    """A code beyond the last interval: arithmetic modulo 2**64, and no endless loop."""
    for seed in range(10):
        test_noise_is_read_by_both_alike.hypothesis.inner_test(bool(seed % 2), seed, start)


def test_a_frame_of_nothing_takes_hardly_a_byte():
    frame = Frame(1, False)
    frame.coded, frame.vectors = np.zeros(frame.blocks, np.uint8), np.zeros((frame.blocks, 2), np.int8)
    frame.changes, frame.levels = frame.before.copy(), np.zeros((3, 16, frame.blocks), np.int16)
    data, _ = write(frame)
    assert len(data) <= 4


def test_likely_levels_take_fewer_bytes_than_unlikely_ones():
    """The code is as long as the probabilities say, within a hundredth and the last byte."""
    frame = Frame(5, True, components=8, down=6, across=8)
    rng = np.random.default_rng(0)
    frame.coded, frame.vectors = np.ones(frame.blocks, np.uint8), np.zeros((frame.blocks, 2), np.int8)
    frame.changes = np.zeros(frame.blocks, np.int8)
    frame.levels = rng.geometric(0.3, (8, 16, frame.blocks)).astype(np.int16)
    data, _ = write(frame)
    bits = 0.0

    class Counting(reference.RangeDecoder):
        def _narrow(self, start, size):
            nonlocal bits
            bits -= np.log2(size / self._size)
            super()._narrow(start, size)

        def bits(self, count):
            if count == 0:
                return 0
            return super().bits(count)

    state, counting = frame.state(), Counting(data)
    reference.read_blocks(counting, state, KEY)
    reference.read_levels(counting, state, KEY, frame.frame_step)
    assert bits / 8 - 1 < len(data) < 1.001 * bits / 8 + 8
