"""The range coder and its contexts: the slow coder writes the same bytes and reads the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from codec.feature import entropy, motion, transform
from codec.feature import step_prediction as steps
from codec.feature.entropy import ALPHABETS, CONTEXTS, LEAST_SHARE, SYMBOLS, ZIGZAG
from codec.feature.transform import STEPS, block_steps
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_group
from tests.codec.reference_feature import DIFFERENCE, KEY

PUBLIC = [
    entropy.put_blocks, entropy.take_blocks, entropy.put_levels, entropy.take_levels, entropy.finish, entropy.start,
    motion.frame, motion.frame_rounded, motion.compensate, motion.search, motion.checksum, motion.magnitude,
    motion.block_differences, transform.add_inverse, steps.gather_neighbours,
]  # fmt: skip
FLOATING = [transform.forward, steps.measure]  # the encoder's own affair


@pytest.mark.parametrize("kernel", PUBLIC + FLOATING, ids=lambda kernel: kernel.__name__)
def test_kernel_is_compiled_for_one_signature_holds_no_lock_and_counts_no_references(kernel):
    assert isinstance(kernel, Dispatcher)
    assert len(kernel.signatures) == 1
    assert not kernel._can_compile
    assert kernel.targetoptions["nogil"]
    assert not kernel.targetoptions["_nrt"]
    assert bool(kernel.targetoptions.get("fastmath")) == (kernel in FLOATING)


class Frame:
    """Everything that both ends know of a group's frame, and the two tables that learn from it."""

    def __init__(self, seed, keyframe, components=3, down=2, across=3):
        rng = np.random.default_rng(seed)
        blocks = down * across
        self.rng, self.keyframe, self.down, self.across, self.blocks = rng, keyframe, down, across, blocks
        self.components = components
        self.group = make_group(components, rng)
        self.kind = KEY if keyframe else DIFFERENCE
        self.before = np.zeros(blocks, np.int8) if keyframe else rng.integers(-12, 13, blocks).astype(np.int8)
        self.energy = rng.integers(0, 1 if keyframe else 5000, (components, blocks)).astype(np.int32)
        self.frame_step = int(rng.integers(32, 241))

    def tables(self):
        probabilities = np.repeat(self.group.probabilities[:, None], 2, 1)
        return probabilities, self.group.distributions.astype(np.int16)

    def state(self):
        """What the slow functions take."""
        state = reference.State(self.components, 4 * self.down, 4 * self.across, None)
        state.group = reference.Group(
            self.group.mean, self.group.inverse, self.group.prior.tolist(), self.group.weights.tolist(),
            self.group.block_weights.tolist(), self.group.probabilities.tolist(), self.group.distributions.tolist(),
        )  # fmt: skip
        state.begin(KEY, False)
        state.changes, state.energy = self.before.tolist(), self.energy.tolist()
        return state


@st.composite
def coded_frames(draw):
    """A frame with vectors, changes, flags and levels of all sizes."""
    frame = Frame(draw(st.integers(0, 2**32)), draw(st.booleans()))
    rng, blocks = frame.rng, frame.blocks
    frame.coded = np.ones(blocks, np.uint8)
    frame.vectors = np.zeros((blocks, 2), np.int8)
    frame.changes = rng.integers(-12, 13, blocks).astype(np.int8)
    if not frame.keyframe:
        frame.coded[rng.random(blocks) < draw(st.sampled_from([0, 0.4, 1]))] = 0
        if draw(st.booleans()):
            frame.vectors[:] = rng.integers(-8, 9, (blocks, 2))
            repeated = rng.random(blocks) < 0.5
            frame.vectors[repeated] = frame.vectors[0]
        frame.changes = np.where(rng.random(blocks) < 0.5, frame.before, frame.changes).astype(np.int8)
        frame.changes[frame.coded == 0] = frame.before[frame.coded == 0]
    largest = draw(st.sampled_from([1, 3, 14, 15, 16, 200, 32767]))
    levels = rng.integers(-largest, largest + 1, (frame.components, 16, blocks))
    levels[rng.random(levels.shape) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    levels[:, :, frame.coded == 0] = 0
    if draw(st.booleans()):
        levels[1] = 0
    frame.levels = levels.astype(np.int16)
    return frame


def write(frame, room=1 << 16):
    """The bytes, and what the tables and the energy are then."""
    probabilities, distributions = frame.tables()
    out, coder, energy = np.zeros(room, np.uint8), entropy.new_writer(), frame.energy.copy()
    sums = np.full((frame.components, 16), 99, np.int32)
    block_step = block_steps(frame.frame_step, frame.changes)
    places = np.arange(1, 17, dtype=np.int8)[:, None]
    lasts = (np.where(frame.levels != 0, places, 0).max(1) - 1).astype(np.int8)
    no_counts = np.zeros((0, 2), np.int64)
    changes = frame.changes.copy()
    failed = entropy.put_blocks(
        changes, frame.before, frame.coded, frame.vectors, frame.across, frame.keyframe, probabilities, out, coder
    ) or entropy.put_levels(
        frame.levels, lasts, block_step, STEPS[block_step], frame.coded, frame.across, frame.frame_step,
        frame.group.prior.astype(np.int32), frame.group.weights[frame.kind].astype(np.int32),
        frame.group.block_weights[frame.kind].astype(np.int32), energy, probabilities, distributions, out, coder, sums,
        entropy.room_for(frame.blocks, frame.across), no_counts, no_counts, False,
    )  # fmt: skip
    assert np.array_equal(changes, frame.changes)
    if failed:
        return None
    size = entropy.finish(out, coder)
    if size < 0:
        return None
    return out[:size].tobytes(), (probabilities, distributions, energy, sums)


def read(frame, data):
    """(changes, coded, vectors, levels, lasts), the tables, and the bytes read; None where it is refused."""
    probabilities, distributions = frame.tables()
    coder, energy = np.zeros(3, np.uint64), frame.energy.copy()
    shape = frame.components, 16, frame.blocks
    data = np.frombuffer(data, np.uint8)
    entropy.start(data, coder)
    changes, coded = np.full(frame.blocks, 99, np.int8), np.full(frame.blocks, 99, np.uint8)
    vectors = np.full((frame.blocks, 2), 99, np.int8)
    if entropy.take_blocks(
        changes, frame.before, coded, vectors, frame.across, frame.keyframe, probabilities, data, coder
    ):
        return None
    levels, lasts = np.full(shape, 99, np.int16), np.full((shape[0], shape[2]), 99, np.int8)
    sums = np.full((frame.components, 16), 99, np.int32)
    block_step = block_steps(frame.frame_step, changes)
    if entropy.take_levels(
        levels, lasts, block_step, STEPS[block_step], coded, frame.across, frame.frame_step,
        frame.group.prior.astype(np.int32), frame.group.weights[frame.kind].astype(np.int32),
        frame.group.block_weights[frame.kind].astype(np.int32), energy, probabilities, distributions, data, coder, sums,
        entropy.room_for(frame.blocks, frame.across),
    ):  # fmt: skip
        return None
    levels[(lasts < 0).all(1)] = 0  # not filled
    return (
        (changes, coded, vectors, levels, lasts),
        (probabilities, distributions, energy, sums),
        int(coder[2]),
    )


@given(coded_frames())
def test_what_is_written_is_read(frame):
    data, learned = write(frame)
    (changes, coded, vectors, levels, lasts), read_learned, position = read(frame, data)
    assert np.array_equal(changes, frame.changes)
    assert np.array_equal(coded, frame.coded)
    assert np.array_equal(vectors, frame.vectors)
    assert np.array_equal(levels, frame.levels)
    assert position - 8 <= len(data) <= position
    for k, f, b in zip(*np.nonzero(levels), strict=True):
        assert lasts[k, b] >= f
    if frame.coded.any():
        for ours, theirs in zip(learned, read_learned, strict=True):
            assert np.array_equal(ours, theirs)


@given(coded_frames())
@settings(max_examples=40)
def test_the_slow_functions_read_the_same(frame):
    data, (probabilities, distributions, energy, sums) = write(frame)
    state, bits = frame.state(), reference.RangeDecoder(data)
    reference.read_blocks(bits, state, frame.kind)
    coefficients = reference.read_levels(bits, state, frame.kind, frame.frame_step)
    assert state.changes == frame.changes.tolist()
    assert state.coded == frame.coded.astype(bool).tolist()
    assert [list(vector) for vector in state.vectors] == frame.vectors.tolist()
    deltas = STEPS[block_steps(frame.frame_step, frame.changes)]
    expected = np.clip(frame.levels.astype(np.int64) * deltas, -(2**17), 2**17)
    assert np.array_equal(coefficients, expected.transpose(0, 2, 1))
    assert state.contexts == probabilities.tolist()
    assert state.alphabets == distributions.tolist()
    assert state.energy == energy.tolist()
    if frame.coded.any():
        assert state.sums == sums.tolist()


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
    found = read(frame, noise)
    try:
        reference.read_blocks(bits, state, frame.kind)
        coefficients = reference.read_levels(bits, state, frame.kind, frame.frame_step)
    except reference.Refused:
        assert found is None
        return
    if found is None:  # stopped early, where more than 8 bytes beyond the end were read
        assert bits.position > len(noise) + 8
        return
    (changes, coded, vectors, levels, _), (probabilities, distributions, _, _), position = found
    assert (state.changes, state.coded) == (changes.tolist(), coded.astype(bool).tolist())
    assert [list(vector) for vector in state.vectors] == vectors.tolist()
    deltas = STEPS[block_steps(frame.frame_step, changes)]
    expected = np.clip(levels.astype(np.int64) * deltas, -(2**17), 2**17)
    assert np.array_equal(coefficients, expected.transpose(0, 2, 1))
    assert state.contexts == probabilities.tolist()
    assert state.alphabets == distributions.tolist()
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


# --- tables ---


def test_places_of_contexts_are_those_of_the_text():
    for name in (
        "PLANE",
        "BLOCK",
        "SIGN",
        "STEP",
        "SKIP",
        "MOTION",
        "CONTEXTS",
        "LAST",
        "FIRST",
        "OTHER",
        "END",
    ):
        assert getattr(entropy, name) == getattr(reference, name)
    assert ALPHABETS == reference.ALPHABETS


def test_zigzag_is_that_of_the_text():
    assert [(v, u) for u, v in ZIGZAG] == reference.ORDER


def test_defaults_are_those_of_the_text():
    assert entropy.default_probabilities().tolist() == reference.default_probabilities()
    assert entropy.default_distributions().tolist() == reference.default_distributions()


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=16, max_size=16), min_size=1, max_size=3))
def test_shares_follow_the_counts_and_none_is_less_than_the_least(counts):
    counts = np.array(counts, np.float64)
    starts = entropy.cumulative_shares(counts).astype(np.int64)
    shares = np.diff(np.pad(starts, ((0, 0), (0, 1)), constant_values=32768), axis=1)
    assert (starts[:, 0] == 0).all()
    assert (shares >= LEAST_SHARE).all()
    for row, share in zip(counts, shares, strict=True):
        if row.sum():
            assert np.abs(share - LEAST_SHARE - row / row.sum() * (32768 - SYMBOLS * LEAST_SHARE)).max() <= 2


@given(st.lists(st.integers(0, 15), max_size=400))
@settings(max_examples=30)
def test_alphabets_keep_their_least_share_whatever_they_learn(symbols):
    alphabet = entropy.default_distributions()[60].astype(int).tolist()
    for symbol in symbols:
        reference.adapt_symbol(alphabet, symbol)
        assert alphabet[0] == 0
        assert min(np.diff([*alphabet, 32768])) >= LEAST_SHARE


def test_contexts_are_counted():
    frame = Frame(2, True)
    frame.coded, frame.vectors = np.ones(frame.blocks, np.uint8), np.zeros((frame.blocks, 2), np.int8)
    frame.levels = np.zeros((3, 16, frame.blocks), np.int16)
    frame.levels[0, 0] = -2
    bit_counts, symbol_counts = np.zeros((CONTEXTS, 2), np.int64), np.zeros((ALPHABETS, SYMBOLS), np.int64)
    probabilities, distributions = frame.tables()
    block_step = np.full(frame.blocks, 100, np.int32)
    entropy.put_levels(
        frame.levels, np.where(frame.levels[:, 0] != 0, 0, -1).astype(np.int8), block_step, STEPS[block_step],
        frame.coded, frame.across, 100, frame.group.prior.astype(np.int32), frame.group.weights[0].astype(np.int32),
        frame.group.block_weights[0].astype(np.int32), frame.energy.copy(), probabilities, distributions,
        np.empty(0, np.uint8), entropy.new_writer(), np.zeros((3, 16), np.int32),
        entropy.room_for(frame.blocks, frame.across), bit_counts, symbol_counts, True,
    )  # fmt: skip
    assert bit_counts[entropy.PLANE : entropy.BLOCK].sum(0).tolist() == [1, 2]
    assert bit_counts[entropy.BLOCK : entropy.SIGN].sum(0).tolist() == [0, frame.blocks]
    assert bit_counts[entropy.SIGN : entropy.STEP].sum(0).tolist() == [0, frame.blocks]
    assert symbol_counts[entropy.LAST : entropy.FIRST].sum(0)[0] == frame.blocks
    assert symbol_counts[entropy.END :].sum(0)[1] == frame.blocks
    assert symbol_counts.sum() == 2 * frame.blocks
