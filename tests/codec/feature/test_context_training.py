"""What the contexts learn: counts are of the bits and symbols that a decoder reads."""

from __future__ import annotations

import numpy as np
import pytest

from codec.feature.alphabets import SYMBOLS
from codec.feature.context_training import QuantizedPicture, count_contexts
from codec.feature.contexts import ALPHABETS, BLOCK, END, FIRST, LAST, PLANE, PROFILED, SIGN, STEP
from codec.feature.transform import STEPS, block_steps
from tests.codec import reference_feature as reference
from tests.codec.feature.coded_frames import Frame, write
from tests.codec.reference_feature import KEY


class Counting(reference.RangeDecoder):
    def __init__(self, data):
        super().__init__(data)
        self.bits_met = np.zeros((PROFILED, 2), np.int64)
        self.symbols_met = np.zeros((ALPHABETS, SYMBOLS), np.int64)

    def counted(self, state):
        """Tell contexts and alphabets apart by what they are kept in."""
        self._contexts = {id(context): number for number, context in enumerate(state.contexts)}
        self._alphabets = {id(alphabet): number for number, alphabet in enumerate(state.alphabets)}

    def bit(self, context):
        bit = super().bit(context)
        self.bits_met[self._contexts[id(context)], int(bit)] += 1
        return bit

    def symbol(self, alphabet):
        symbol = super().symbol(alphabet)
        self.symbols_met[self._alphabets[id(alphabet)], symbol] += 1
        return symbol


def picture(frame):
    steps = block_steps(frame.frame_step, frame.changes)
    return QuantizedPicture(frame.levels, frame.lasts(), steps, STEPS[steps], frame.across, frame.frame_step)


def still(seed, share, largest, **shape):
    """A keyframe, of which a share of the levels is not zero, and a component has none."""
    frame = Frame(seed, True, **shape)
    frame.calibrated = True
    frame.coded, frame.vectors = np.ones(frame.blocks, np.uint8), np.zeros((frame.blocks, 2), np.int8)
    frame.changes = frame.rng.integers(-12, 13, frame.blocks).astype(np.int8)
    levels = frame.rng.integers(-largest, largest + 1, (frame.components, 16, frame.blocks))
    levels[frame.rng.random(levels.shape) > share] = 0
    levels[1] = 0
    frame.levels = levels.astype(np.int16)
    return frame


@pytest.mark.parametrize("largest", [1, 5, 20, 32767])
@pytest.mark.parametrize("share", [0.02, 0.3, 1])
def test_counts_are_of_what_the_slow_decoder_reads(share, largest):
    frame = still(largest, share, largest, components=4, down=4, across=5)
    data, _ = write(frame)
    state, decoder = frame.state(), Counting(data)
    decoder.counted(state)
    reference.read_blocks(decoder, state, KEY)
    decoder.bits_met[:] = 0
    reference.read_levels(decoder, state, KEY, frame.frame_step)
    bits, symbols = count_contexts(frame.group, picture(frame))
    assert np.array_equal(bits, decoder.bits_met)
    assert np.array_equal(symbols, decoder.symbols_met)
    assert symbols.sum() > 0


def test_each_kind_of_context_is_counted_in_its_place():
    frame = still(2, 0, 1)
    frame.levels[0, 0] = -2
    bits, symbols = count_contexts(frame.group, picture(frame))
    assert bits[PLANE:BLOCK].sum(0).tolist() == [1, 2]
    assert bits[BLOCK:SIGN].sum(0).tolist() == [0, frame.blocks]
    assert bits[SIGN:STEP].sum(0).tolist() == [0, frame.blocks]
    assert symbols[LAST:FIRST].sum(0)[0] == frame.blocks
    assert symbols[END:].sum(0)[1] == frame.blocks
    assert symbols.sum() == 2 * frame.blocks
