"""The tensors of one height and width, stacked: what encoder and decoder both hold of them, the reference frame."""

from __future__ import annotations

import numpy as np

from codec.feature import motion
from codec.feature.alphabets import SYMBOLS
from codec.feature.blocks import FrameBlocks
from codec.feature.contexts import ALPHABETS, CONTEXTS, HALF, PROFILED
from codec.feature.expectation import SHOWN_WEIGHT
from codec.feature.levels import FrameLevels, LevelContexts, workspace_for
from codec.feature.parameters import whole_blocks
from codec.feature.profile import GroupProfile, Profile, channels_of, grouped, plane
from codec.feature.range_coder import SETTLED
from codec.feature.rotation import rotated_components
from codec.feature.transform import InverseTransform, set_steps
from codec.feature.uncalibrated import profile_of
from codec.layout import Layout, TensorSpec


class Group:
    """The tensors of one height and width, stacked: what encoder and decoder both hold of them."""

    def __init__(self, specs: list[TensorSpec], profile: GroupProfile | None) -> None:
        self.specs, self.calibrated = specs, profile is not None
        self.height, self.width = plane(specs[0])
        self.rows, self.columns = whole_blocks(self.height), whole_blocks(self.width)
        self.across = self.columns // 4
        self.channels = sum(channels_of(spec) for spec in specs)
        blocks = self.across * self.rows // 4
        self.levels = np.zeros((self.channels, 16, blocks), np.int16)
        self.lasts = np.full((self.channels, blocks), -1, np.int8)
        self.steps = np.zeros(blocks, np.int32)
        self.deltas = np.ones(blocks, np.int32)
        self.coded = np.ones(blocks, np.uint8)
        self.vectors = np.zeros((blocks, 2), np.int8)
        self.sharp = np.zeros(blocks, np.uint8)
        self.changes = np.zeros(blocks, np.int8)
        self.before = np.zeros(blocks, np.int8)
        self.energy = np.zeros((self.channels, blocks), np.int32)
        self.sums = np.zeros((self.channels, 16), np.int32)
        self.workspace = workspace_for(blocks, self.across)
        self.planes = np.zeros((self.channels, self.rows, self.columns), np.int16)  # the reference frame
        self.use(profile or profile_of(np.zeros((2, self.channels), np.float16)))
        self._inverse = InverseTransform(self.rotation, self.rows, self.columns)
        self.probabilities = np.empty((CONTEXTS, 2), np.uint16)
        self.distributions = np.empty((ALPHABETS, SYMBOLS), np.int16)
        self.met = np.zeros(ALPHABETS, np.int16)
        self.frame_blocks = FrameBlocks(
            self.changes, self.before, self.coded, self.vectors, self.sharp, self.across
        )
        self.frame_levels = FrameLevels(
            self.levels, self.lasts, self.steps, self.deltas, self.coded, self.across
        )
        self._samples = motion.padded_frame(self.rows, self.columns, self.channels)
        self._motion_workspace = motion.workspace_for(self.channels)

    def use(self, profile: GroupProfile) -> None:
        """Code from the next keyframe on with this profile."""
        self.profile = profile
        self.key_prior = profile.prior.astype(np.int32)
        self.weights = profile.weights.astype(np.int32)
        self.block_weights = profile.block_weights.astype(np.int32)
        self.prior = self.key_prior
        # Channels as they are have nothing to tell by what to rotate them.
        rotated = rotated_components(self.channels) if self.calibrated else 0
        self.rotation = np.ascontiguousarray(profile.rotation[:, :rotated, :rotated])

    def begin(self, keyframe: bool, first_difference: bool) -> None:
        """Set the contexts for the next frame."""
        if keyframe:
            self.planes[:] = 0
            self.energy[:] = 0
            self.before[:] = 0
            self.vectors[:] = 0
            self.sharp[:] = 0
            self.coded[:] = 1
            self.prior = self.key_prior
        elif first_difference:
            self.prior = np.maximum(self.key_prior * 38 >> 8, 1)
        if keyframe or first_difference:
            self.probabilities[:PROFILED] = self.profile.probabilities[:, None]
            self.probabilities[PROFILED:] = HALF
            self.distributions[:] = self.profile.distributions
            # Calibration measured what keyframes start from, and not what differences do.
            self.met[:] = SETTLED if keyframe and self.calibrated else 0

    def contexts(self, keyframe: bool) -> LevelContexts:
        """What the frame's levels are coded by."""
        kind = 0 if keyframe else 1
        return LevelContexts(
            self.prior,
            self.weights[kind],
            self.block_weights[kind],
            self.energy,
            self.sums,
            self.probabilities,
            self.distributions,
            self.met,
            SHOWN_WEIGHT if self.calibrated else 0,
        )

    def set_steps(self, frame_step: int) -> None:
        """Each block's step from the frame's and its own change."""
        set_steps(frame_step, self.changes, self.steps, self.deltas)

    def predict(self) -> None:
        """Move the blocks of the reference frame by their vectors: it then predicts the next frame."""
        if self.vectors.any():
            motion.pad(self.planes, self._samples)
            motion.compensate(self._samples, self.vectors, self.sharp, self.planes, *self._motion_workspace)

    def reconstruct(self, keyframe: bool) -> None:
        """Add the levels to the prediction, which then is the next reference frame, and learn from them."""
        self._inverse.add(self.levels, self.lasts, self.deltas, self.planes)
        self.before[:] = self.changes
        coded = int(np.count_nonzero(self.coded))
        if not keyframe and coded:
            self.prior = np.maximum(
                (3 * coded * self.prior.astype(np.int64) + self.sums) // (4 * coded), 1
            ).astype(np.int32)


def groups_of(profile: Profile | None, layout: Layout) -> list[Group]:
    """The groups of a layout, in their order. Raises ProfileMismatch if the profile is for other tensors."""
    if profile is None:
        return [Group(specs, None) for specs in grouped(layout)]
    profile.check(layout)
    return [Group(specs, group) for specs, group in zip(grouped(layout), profile.groups, strict=True)]


def reference_checksum(groups: list[Group]) -> int:
    """Checksum of the reference frame, 32 bits."""
    return sum(int(motion.checksum(group.planes)) for group in groups) % 2**32
