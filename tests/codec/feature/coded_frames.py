"""Frames of random levels, vectors and steps, written and read by the kernels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from codec.feature.blocks import FrameBlocks, decode_blocks, encode_blocks
from codec.feature.contexts import CONTEXTS, HALF, PROFILED
from codec.feature.expectation import SHOWN_WEIGHT
from codec.feature.levels import FrameLevels, LevelContexts, decode_levels, encode_levels, workspace_for
from codec.feature.range_coder import finish_encoder, start_decoder, start_encoder
from codec.feature.transform import STEPS, block_steps
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_group
from tests.codec.reference_feature import DIFFERENCE, KEY


class Frame:
    """Everything that both ends know of a group's frame, and the two tables that learn from it."""

    def __init__(self, seed, keyframe, components=3, down=2, across=3):
        rng = np.random.default_rng(seed)
        blocks = down * across
        self.rng, self.keyframe, self.down, self.across, self.blocks = rng, keyframe, down, across, blocks
        self.components = components
        self.sharp = np.zeros(blocks, np.uint8)
        self.group = make_group(components, rng)
        self.kind = KEY if keyframe else DIFFERENCE
        self.before = np.zeros(blocks, np.int8) if keyframe else rng.integers(-12, 13, blocks).astype(np.int8)
        self.energy = rng.integers(0, 1 if keyframe else 5000, (components, blocks)).astype(np.int32)
        self.frame_step = int(rng.integers(32, 241))
        self.calibrated = bool(rng.integers(2))
        self.met = rng.choice([0, 31, 32, 127, 128], len(self.group.distributions)).astype(np.int16)

    def tables(self):
        probabilities = np.full((CONTEXTS, 2), HALF, np.uint16)
        probabilities[:PROFILED] = self.group.probabilities[:, None]
        return probabilities, self.group.distributions.astype(np.int16)

    def state(self):
        """What the slow functions take."""
        state = reference.State(self.components, 4 * self.down, 4 * self.across, None)
        state.group = reference.Group(
            self.group.mean, self.group.inverse, self.group.rotation, self.group.prior.tolist(),
            self.group.weights.tolist(),
            self.group.block_weights.tolist(), self.group.probabilities.tolist(), self.group.distributions.tolist(),
        )  # fmt: skip
        state.calibrated = self.calibrated
        state.begin(KEY, False)
        for alphabet, met in zip(state.alphabets, self.met.tolist(), strict=True):
            alphabet.met = met
        state.changes, state.energy = self.before.tolist(), self.energy.tolist()
        return state

    def lasts(self):
        places = np.arange(1, 17, dtype=np.int8)[:, None]
        return (np.where(self.levels != 0, places, 0).max(1) - 1).astype(np.int8)

    def contexts(self):
        """What the kernels code levels by."""
        return LevelContexts(
            self.group.prior.astype(np.int32),
            self.group.weights[self.kind].astype(np.int32),
            self.group.block_weights[self.kind].astype(np.int32),
            self.energy.copy(),
            np.full((self.components, 16), 99, np.int32),
            *self.tables(),
            self.met.copy(),
            SHOWN_WEIGHT if self.calibrated else 0,
        )


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
        if draw(st.booleans()):
            frame.sharp[:] = rng.integers(0, 2, blocks) & (frame.vectors % 4 != 0).any(1)
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
    """The bytes, and the contexts after them; None where there is no room."""
    contexts, out, coder = frame.contexts(), np.zeros(room, np.uint8), start_encoder()
    steps = block_steps(frame.frame_step, frame.changes)
    blocks = FrameBlocks(
        frame.changes.copy(), frame.before, frame.coded, frame.vectors, frame.sharp, frame.across
    )
    levels = FrameLevels(frame.levels, frame.lasts(), steps, STEPS[steps], frame.coded, frame.across)
    workspace = workspace_for(frame.blocks, frame.across)
    failed = encode_blocks(blocks, frame.keyframe, contexts.probabilities, out, coder) or encode_levels(
        levels, contexts, frame.frame_step, out, coder, workspace
    )
    assert np.array_equal(blocks.changes, frame.changes)
    size = -1 if failed else finish_encoder(out, coder)
    return None if size < 0 else (out[:size].tobytes(), contexts)


def read(frame, data):
    """The blocks, the levels and the contexts after them, and the bytes read; None where it is refused."""
    contexts, coder, data = frame.contexts(), np.zeros(3, np.uint64), np.frombuffer(data, np.uint8)
    start_decoder(data, coder)
    changes, coded = np.full(frame.blocks, 99, np.int8), np.full(frame.blocks, 99, np.uint8)
    vectors, sharp = np.full((frame.blocks, 2), 99, np.int8), np.full(frame.blocks, 99, np.uint8)
    blocks = FrameBlocks(changes, frame.before, coded, vectors, sharp, frame.across)
    if decode_blocks(blocks, frame.keyframe, contexts.probabilities, data, coder):
        return None
    steps = block_steps(frame.frame_step, changes)
    levels = FrameLevels(
        np.full((frame.components, 16, frame.blocks), 99, np.int16),
        np.full((frame.components, frame.blocks), 99, np.int8),
        steps,
        STEPS[steps],
        coded,
        frame.across,
    )
    workspace = workspace_for(frame.blocks, frame.across)
    if decode_levels(levels, contexts, frame.frame_step, data, coder, workspace):
        return None
    levels.levels[(levels.lasts < 0).all(1)] = 0  # not filled
    return blocks, levels, contexts, int(coder[2])
