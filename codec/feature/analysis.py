"""A frame before it is coded: what only the encoder has of a group, and the search for its vectors and steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from codec.extremes import copy_planes, order_range, range_of
from codec.feature import motion
from codec.feature.blocks import choose_changes, tell_coded
from codec.feature.group import Group
from codec.feature.noise import TemporalFilter
from codec.feature.profile import GroupProfile, channels_of
from codec.feature.step_map import StepGuide
from codec.feature.step_prediction import StepPredictor
from codec.feature.transform import STEPS, ForwardTransform, rounding
from codec.feature.uncalibrated import channel_ranges, profile_of
from codec.layout import FloatArray, TensorSpec

BIT_COST = 0.1  # of a vector, in steps of absolute difference
SKIP_THRESHOLD = (
    0.04  # of a step: a block that changed by less since the last frame, in the mean, does not move
)
COMPONENTS_BY_EFFORT = (8, 8, 12, 24)  # that are compared
REACH_BY_EFFORT = (0, 1, 1, 2)  # of the search, in samples in each direction
REFINEMENTS_BY_EFFORT = (0, 1, 2, 2)  # then to halves or quarters of a sample
UNEXPLAINED = 0.8  # share of a frame's magnitude that its prediction leaves where it is of little use
SCENE_CUT_DIFFERENCE = 1.0  # and by how much of it, at least, frames of different scenes differ

HELD_BACK = 0.2
"""Of a step: what a still block's coefficient must differ by more than another's before it gets a level.

A level brings the reference half a step from where a coefficient was rounded to the other side: noise that is much
smaller would go on correcting it.
"""

KEY_LAMBDA, DIFFERENCE_LAMBDA = 0.02, 0.1
"""What a bit is worth, in squared steps: larger values save bits by losing weak objects."""


_FAR = np.float32(2**20)


class FrameAnalysis:
    """What only the encoder has of a group: the frame to code, and the search for its vectors and steps."""

    def __init__(self, group: Group, effort: int) -> None:
        self._group, self._effort = group, effort
        self._stacked = np.zeros((group.channels, group.rows, group.columns), np.float32)
        self._samples = np.zeros_like(self._stacked)
        self._forward = ForwardTransform(group.rotation, group.channels, group.rows, group.columns)
        self._components = min(COMPONENTS_BY_EFFORT[effort], group.channels)  # to look for motion in
        self._current = motion.padded_frame(group.rows, group.columns, self._components)
        self._reference = np.zeros_like(self._current)
        self._last = np.zeros_like(self._current)  # frame, without its noise
        self._filter = TemporalFilter(group.channels, group.rows, group.columns)
        self._may_be_far = True
        self._source = self._samples  # what is coded: the frame as it was taken, or without its noise
        self._is_remembered = False  # the present one
        self.guide = StepGuide(group.rows // 4, group.across)
        self._differences = np.zeros(group.deltas.size, np.int64)
        self._held_back = np.zeros(group.deltas.size, np.float32)
        self._rounding: dict[
            bool, tuple[int, FloatArray]
        ] = {}  # of the last keyframe and difference: step, values
        self.ranges = b""  # what a keyframe says where there is no calibration
        self._use(group.profile)

    def _use(self, profile: GroupProfile) -> None:
        group = self._group
        self._offset = profile.forward @ profile.mean
        # Bits of a magnitude: where none is greater, no component is far. One more bit is for what products round.
        reach = np.float64(_FAR) / max(np.abs(profile.forward).sum(1, dtype=np.float64).max(), 1) / 2
        self._near = int(np.float32(reach).view(np.int32))
        self._rounding.clear()
        self._filter.begin(profile)
        self._predictor = StepPredictor(profile.step_network, self._offset, group.rows // 4, group.across)

    def begin_keyframe(self, *, goes_on: bool) -> None:
        """Without calibration, take the ranges of this frame for it and for the differences that follow.

        goes_on: it shows the scene of the frame before, from which nothing is known to have moved.
        """
        self._group.vectors[:] = 0
        if goes_on:
            self.guide.advance(self._group.vectors)
        else:
            self.guide.forget()
        if not self._group.calibrated:
            ranges = channel_ranges(self._stacked)
            self.ranges = ranges.astype(">f2").tobytes()
            self._group.use(profile_of(ranges))
            self._use(self._group.profile)
            self._is_remembered = False  # other frames are in units of other ranges

    def stack(self, tensors: Mapping[TensorSpec, FloatArray]) -> None:
        """Take the frame's tensors, flat, by spec. Raises NonFiniteTensor, or leaves that to `transform`."""
        group = self._group
        self._is_remembered = False
        first = greatest = 0
        for spec in group.specs:
            tensor = tensors[spec].reshape(-1, group.height, group.width)
            copied = copy_planes(tensor, self._stacked[first : first + len(tensor)])
            greatest = max(greatest, copied)
            first += len(tensor)
        self._may_be_far = greatest > self._near
        if group.width < group.columns:
            self._stacked[:, :, group.width :] = self._stacked[:, :, group.width - 1 : group.width]
        if group.height < group.rows:
            self._stacked[:, group.height :] = self._stacked[:, group.height - 1 : group.height]
        if not group.calibrated:
            self._check_finite()  # before their ranges are taken

    def _check_finite(self) -> None:
        first = 0
        for spec in self._group.specs:
            channels = channels_of(spec)
            range_of(self._stacked[first : first + channels].reshape(-1), spec.name)
            first += channels

    def transform(self) -> None:
        """Components of the frame, which still have their offset. Raises NonFiniteTensor."""
        group = self._group
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(
                group.profile.forward,
                self._stacked.reshape(group.channels, -1),
                out=self._samples.reshape(group.channels, -1),
            )
        if self._may_be_far and _any_far(self._samples):
            self._check_finite()  # only now: what is not finite makes all components of its place far
            np.clip(np.nan_to_num(self._samples), -_FAR, _FAR, out=self._samples)

    def remember(self) -> None:
        """Tell the frame from its noise, and keep its first components for this search and the next."""
        if self._is_remembered:
            return
        self._is_remembered = True
        self._filter.take(self._samples)
        self._source = self._filter.mean
        self._last, self._current = self._current, self._last
        motion.pad_rounded(self._source, self._offset, self._current)

    def search(self, step: int) -> bool:
        """Find each block's vector; tell whether the frame has little to do with the one before."""
        group = self._group
        self.remember()
        motion.pad(group.planes, self._reference)
        vectors = group.vectors
        vectors[:] = 0
        width = int(STEPS[step])
        skip = SKIP_THRESHOLD * width * 16 * self._components
        remaining = int(motion.search(
            self._current, self._last, self._reference, self._filter.still, vectors, group.sharp,
            round(BIT_COST * width), round(skip),
            REACH_BY_EFFORT[self._effort], REFINEMENTS_BY_EFFORT[self._effort],
        ))  # fmt: skip
        self.guide.advance(vectors)
        return self._is_another_scene(remaining)

    def _is_another_scene(self, remaining: int) -> bool:
        # A coarse reference explains little of any frame: only the frames as they were taken tell a change of scene.
        magnitude = self._magnitude()
        if remaining <= UNEXPLAINED * magnitude:
            return False
        motion.block_differences(self._current, self._last, self._differences)
        return bool(self._differences.sum() > SCENE_CUT_DIFFERENCE * magnitude)

    def _magnitude(self) -> float:
        """Of the frame's first components, about their mean."""
        if self._group.calibrated:
            return float(motion.magnitude(self._current))
        # Without calibration samples count from their channel's least value, which is far from the mean.
        samples = motion.without_margin(self._current)
        return float(np.abs(samples - samples.mean((0, 1))).sum())

    def outgrown(self) -> bool:
        """Whether samples of 16 bits cannot say this frame in the ranges of the last keyframe."""
        group = self._group
        if group.calibrated:
            return False
        low, high = channel_ranges(self._stacked).astype(np.float32)
        reach = 32767 * np.diag(group.profile.inverse)
        return bool(((high - group.profile.mean > reach) | (group.profile.mean - low > reach)).any())

    def quantize(self, keyframe: bool, step: int, step_shaping: float) -> None:
        """Set the group's steps, and the levels of the difference from its prediction."""
        group = self._group
        changes = self._predictor.changes(self._source, step_shaping, self.guide)
        if keyframe:
            group.changes[:] = changes
        else:
            choose_changes(changes, group.before, group.changes)
            group.predict()
        group.set_steps(step)
        self._held_back[:] = 0 if keyframe else HELD_BACK * self._filter.still
        self._forward.quantize(
            self._source, group.planes, self._offset, group.deltas,
            self._rounding_of(keyframe, step), self._held_back, group.levels, group.lasts,
        )  # fmt: skip
        if not keyframe:
            tell_coded(group.lasts, group.before, group.changes, group.coded)

    def _rounding_of(self, keyframe: bool, step: int) -> FloatArray:
        """What is added before fractions are cut off, which is the same from frame to frame while the step is."""
        kept = self._rounding.get(keyframe)
        if kept is None or kept[0] != step:
            weight = KEY_LAMBDA if keyframe else DIFFERENCE_LAMBDA
            kept = self._rounding[keyframe] = step, rounding(self._group.key_prior, step, weight)
        return kept[1]


def _any_far(samples: FloatArray) -> bool:
    """Whether any is far beyond the 16 bits of a reference frame: finite tensors may overflow their transform."""
    least, greatest = order_range(samples.reshape(-1).view(np.int32))
    far = int(_FAR.view(np.int32))
    return least < ~far or greatest > far
