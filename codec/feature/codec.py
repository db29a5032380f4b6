"""The feature codec: sensitivity-shaped transform coding with closed-loop prediction (docs/bitstream.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.errors import (
    BadCodecSpec,
    BadLayout,
    CorruptPacket,
    MissingReference,
    StateMismatch,
    UnsupportedPacket,
)
from codec.feature import entropy, motion, transform
from codec.feature.bundled import BUNDLED
from codec.feature.profile import MAX_CHANNELS as MAX_GROUP_CHANNELS
from codec.feature.profile import GroupProfile, Profile, channels_of, grouped, plane
from codec.feature.step_prediction import StepPredictor
from codec.feature.transform import COARSEST, FINEST, STEPS, block_steps, rounding
from codec.feature.uncalibrated import channel_ranges, parse_ranges, profile_of
from codec.interface import (
    DecodedFrame,
    EncodedFrame,
    KeyframeReason,
    StepRange,
    check_keyframe_interval,
    in_layout_order,
    spec_text,
)
from codec.layout import FloatArray, Layout, TensorSpec
from codec.packet import PacketFormat, Stamp, next_sequence
from codec.value_range import ValueRange, order_range

MAX_QUALITY = 10
PARAMETER_BYTES = 8
MAX_SIDE = 512
MAX_CHANNELS = 4096
MAX_SAMPLES = 2**24
"""Limits of a layout: extents of a plane, channels and samples of all tensors, sides rounded up to whole blocks.

They bound memory and time, and keep every sum over the blocks of a plane within 32 bits.
"""

KEYFRAME_FINER = 6
"""Keyframes are as much finer than differences: what they leave out, no difference brings back for free."""

KEY_LAMBDA, DIFFERENCE_LAMBDA = 0.02, 0.1
DIFFERENCE_SHAPING = 0.85
"""How far the steps of differences follow each block's sensitivity, against those of keyframes.

On two busy clips, against 1: 3 and 8 % fewer bytes at equal AP50-95, 2 and 15 % at equal AP50.
"""

QUALITY: Mapping[int, tuple[int, float]] = {
    1: (218, 1.1), 2: (208, 1.1), 3: (198, 1.1), 4: (190, 1.1), 5: (181, 1.1), 6: (168, 1.1),
    7: (164, 1.1), 8: (152, 1.0), 9: (136, 0.75), 10: (116, 0.5),
}  # fmt: skip
"""Step, and how far it follows each block's sensitivity: small objects need less of that when all is fine."""

BIT_COST = 0.1  # of a vector, in steps of absolute difference
ALIKE = 0.04  # of a step: a block that changed by less since the last frame, in the mean, does not move
COMPARED = (8, 8, 12, 24)  # components, by effort
REACH = (0, 1, 1, 2)  # samples in each direction, by effort
REFINE = (0, 1, 2, 2)  # then to halves or quarters of a sample, by effort
UNEXPLAINED = 0.8  # share of a frame's magnitude that its prediction leaves where it is of little use
UNRELATED = 1.0  # and by how much of it, at least, frames of different scenes differ

CALM = 0.2  # share of blocks that noise is measured in
MOVING = 1.2  # times the difference over one frame: more over two is motion
NOISE_SHARE = 0.15
"""Of a step: camera noise with a larger standard deviation would fill differences with itself."""
MOST_COARSENED = 32  # for noise

Payload: TypeAlias = NDArray[np.uint8]
_HEAD = struct.Struct(">B")
_STATE = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Feature:
    """Parameters of the codec. Raises BadCodecSpec if one is out of range."""

    name: ClassVar = "feature"
    codec_id: ClassVar = 2
    takes_profile: ClassVar = True
    step_range: ClassVar = StepRange(64, 232)

    quality: int = 6  # 1 to 10; for the encoder
    temporal: bool = True  # code differences from the previous frame
    effort: int = 2  # of the search for motion, 0 to 3; for the encoder
    keyframe_interval: int = 250  # packets from one keyframe to the next, at most; for the encoder
    profile: Profile | None = None  # None: no calibration, or one that is still to be found
    profile_is_open: bool = False  # to be found by whoever knows the network; until then coded without

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= MAX_QUALITY:
            raise BadCodecSpec(f"feature: quality is {self.quality}, not 1 to {MAX_QUALITY}")
        if not 0 <= self.effort <= 3:
            raise BadCodecSpec(f"feature: effort is {self.effort}, not 0 to 3")
        check_keyframe_interval(self.name, self.keyframe_interval)
        if self.profile_is_open and self.profile is not None:
            raise BadCodecSpec("feature: a profile is given and left open")

    def __str__(self) -> str:
        profile = "auto" if self.profile_is_open else "none" if self.profile is None else self.profile.hash
        return spec_text(
            self.name,
            {
                "quality": self.quality,
                "temporal": self.temporal,
                "effort": self.effort,
                "keyframe_interval": self.keyframe_interval,
                "profile": profile,
            },
        )

    def with_profile(self, profile: Profile | None) -> Self:
        """The same with this calibration profile, or without calibration."""
        return replace(self, profile=profile, profile_is_open=False)

    @classmethod
    def from_parameters(cls, parameters: bytes) -> Self:
        """The codec for packets with these parameter bytes: the first eight of the profile's hash, or zeros."""
        if len(parameters) != PARAMETER_BYTES:
            raise UnsupportedPacket("feature parameters", f"{PARAMETER_BYTES} bytes", repr(parameters.hex()))
        if not any(parameters):
            return cls()
        for profile_hash, profile in BUNDLED.items():
            if profile_hash.startswith(parameters.hex()):
                return cls(profile=profile)
        raise UnsupportedPacket("calibration profile", "one that comes with this software", parameters.hex())

    def packet_format(self, layout: Layout) -> PacketFormat:
        _check(layout)
        most = payload_bound(layout)
        return PacketFormat(
            self.codec_id,
            bytes.fromhex(self.profile.hash[: 2 * PARAMETER_BYTES])
            if self.profile
            else bytes(PARAMETER_BYTES),
            self.temporal,
            layout,
            ((_HEAD.size, most), *((0, 0) for _ in layout[1:])),
        )

    def encoder(self, layout: Layout) -> FeatureEncoder:
        return FeatureEncoder(self, layout)

    def decoder(self, layout: Layout) -> FeatureDecoder:
        return FeatureDecoder(self, layout)


def payload_bound(layout: Layout) -> int:
    """Bytes that no payload exceeds: four for each sample, and some for a start. The longest level has 31 bits."""
    return 4 * _samples(layout) + 1024


def _samples(layout: Layout) -> int:
    return sum(spec.size // (h * w) * _whole(h) * _whole(w) for spec in layout for h, w in [plane(spec)])


def _whole(side: int) -> int:
    return -(-side // 4) * 4


def _check(layout: Layout) -> None:
    """Raise BadLayout if a layout is beyond what the format allows."""
    for spec in layout:
        if max(plane(spec)) > MAX_SIDE:
            raise BadLayout(f"feature: tensor {spec} has planes larger than {MAX_SIDE}x{MAX_SIDE}")
    channels = sum(spec.size // (h * w) for spec in layout for h, w in [plane(spec)])
    if channels > MAX_CHANNELS:
        raise BadLayout(f"feature: the tensors have {channels} channels, the limit is {MAX_CHANNELS}")
    if (most := max(sum(map(channels_of, specs)) for specs in grouped(layout))) > MAX_GROUP_CHANNELS:
        raise BadLayout(
            f"feature: {most} channels have one height and width, the limit is {MAX_GROUP_CHANNELS}"
        )
    if (samples := _samples(layout)) > MAX_SAMPLES:
        raise BadLayout(f"feature: the tensors have {samples} samples, the limit is {MAX_SAMPLES}")


class _Group:
    """The tensors of one height and width, stacked: what encoder and decoder both hold of them."""

    def __init__(self, specs: list[TensorSpec], profile: GroupProfile | None) -> None:
        self.specs, self.calibrated = specs, profile is not None
        self.height, self.width = plane(specs[0])
        self.rows, self.columns = _whole(self.height), _whole(self.width)
        self.across = self.columns // 4
        self.channels = sum(channels_of(spec) for spec in specs)
        blocks = self.across * self.rows // 4
        self.levels = np.zeros((self.channels, 16, blocks), np.int16)
        self.lasts = np.full((self.channels, blocks), -1, np.int8)
        self.steps = np.zeros(blocks, np.int32)
        self.deltas = np.ones(blocks, np.int32)
        self.coded = np.ones(blocks, np.uint8)
        self.vectors = np.zeros((blocks, 2), np.int8)
        self.changes = np.zeros(blocks, np.int8)
        self.before = np.zeros(blocks, np.int8)
        self.energy = np.zeros((self.channels, blocks), np.int32)
        self.sums = np.zeros((self.channels, 16), np.int32)
        self.room = entropy.room_for(blocks, self.across)
        self.planes = np.zeros((self.channels, self.rows, self.columns), np.int16)  # the reference frame
        self.use(profile or profile_of(np.zeros((2, self.channels), np.float16)))
        self.probabilities = np.empty((entropy.CONTEXTS, 2), np.uint16)
        self.distributions = np.empty((entropy.ALPHABETS, entropy.SYMBOLS), np.int16)
        self._samples = motion.framed(self.rows, self.columns, self.channels)
        self._motion_room = motion.room_for(self.channels)
        self._rows = np.zeros((4, blocks * 4), np.int32)
        self._coefficients = np.zeros((16, blocks), np.int32)

    def use(self, profile: GroupProfile) -> None:
        """Code from the next keyframe on with this profile."""
        self.profile = profile
        self.key_prior = profile.prior.astype(np.int32)
        self.weights = profile.weights.astype(np.int32)
        self.block_weights = profile.block_weights.astype(np.int32)
        self.prior = self.key_prior

    def begin(self, keyframe: bool, first_difference: bool) -> None:
        """Set the contexts for the next frame."""
        if keyframe:
            self.planes[:] = 0
            self.energy[:] = 0
            self.before[:] = 0
            self.vectors[:] = 0
            self.coded[:] = 1
            self.prior = self.key_prior
        elif first_difference:
            self.prior = np.maximum(self.key_prior * 38 >> 8, 1)
        if keyframe or first_difference:
            self.probabilities[:] = self.profile.probabilities[:, None]
            self.distributions[:] = self.profile.distributions

    def set_steps(self, frame_step: int) -> None:
        """Each block's step from the frame's and its own change."""
        self.steps[:] = block_steps(frame_step, self.changes)
        np.take(STEPS, self.steps, out=self.deltas)

    def predict(self) -> None:
        """Move the blocks of the reference frame by their vectors: it then predicts the next frame."""
        if self.vectors.any():
            motion.frame(self.planes, self._samples)
            motion.compensate(self._samples, self.vectors, self.planes, *self._motion_room)

    def reconstruct(self, keyframe: bool) -> None:
        """Add the levels to the prediction, which then is the next reference frame, and learn from them."""
        transform.add_inverse(
            self.levels, self.lasts, self.deltas, self.planes, self._rows, self._coefficients
        )
        self.before[:] = self.changes
        coded = int(np.count_nonzero(self.coded))
        if not keyframe and coded:
            self.prior = np.maximum(
                (3 * coded * self.prior.astype(np.int64) + self.sums) // (4 * coded), 1
            ).astype(np.int32)


def _groups(codec: Feature, layout: Layout) -> list[_Group]:
    groups = grouped(layout)
    if codec.profile is None:
        return [_Group(specs, None) for specs in groups]
    codec.profile.check(layout)
    return [_Group(specs, profile) for specs, profile in zip(groups, codec.profile.groups, strict=True)]


def _state(groups: list[_Group]) -> int:
    """Checksum of the reference frame."""
    return sum(int(motion.checksum(group.planes)) for group in groups) % 2**32


class FeatureEncoder:
    """Codes frames one after the other; owns the reference frame."""

    def __init__(self, codec: Feature, layout: Layout) -> None:
        self._codec, self._layout = codec, layout
        self._format = codec.packet_format(layout)
        self._groups = _groups(codec, layout)
        self._sources = [_Source(group, codec) for group in self._groups]
        self._out = np.zeros(payload_bound(layout), np.uint8)
        self.step, self._beta = QUALITY[codec.quality]
        if codec.profile:
            self.step += int(codec.profile.groups[0].step_offset[0])
            self.step = min(max(self.step, codec.step_range.finest), codec.step_range.coarsest)
        self._sequence: int | None = None  # of the reference frame
        self._since_keyframe = 0
        self._requested = False

    def force_keyframe(self) -> None:
        """Make the next packet a keyframe."""
        self._requested = True

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One packet. Raises ShapeMismatch or NonFiniteTensor; the next packet is then a keyframe."""
        reference, self._sequence = self._sequence, None
        ordered = dict(zip(self._layout, in_layout_order(tensors, self._layout), strict=True))
        for spec, coefficients in ordered.items():
            ValueRange.of(coefficients, spec.name)
        for source in self._sources:
            source.stack(ordered)
        reason = self._why_keyframe(reference, stamp)
        if reason is None:
            for source in self._sources:
                source.transform()
            step = self._above_noise()
            changed = [source.search(step) for source in self._sources]
            if all(changed) or any(source.outgrown() for source in self._sources):
                reason = "scene"
        if reason is not None:
            for source in self._sources:
                source.begin_keyframe()
                source.transform()
                if self._codec.temporal:
                    source.remember()
        step = self._above_noise()
        size = self._code(reason is not None, step)
        while size < 0:  # does not fit: rarer than any real frame
            assert step < COARSEST, "levels of the coarsest step do not fit the bound"
            step = min(step + 16, COARSEST)
            reason = reason or "smaller"
            size = self._code(True, step)
        sections = [self._out[:size].data, *(memoryview(b"") for _ in self._layout[1:])]
        keyframe = reason is not None
        data = self._format.seal(stamp, keyframe, sections)
        self._sequence = stamp.sequence
        if keyframe:
            self._since_keyframe, self._requested = 0, False
        self._since_keyframe += 1
        return EncodedFrame(data, keyframe, reason if self._codec.temporal else None, step)

    def _above_noise(self) -> int:
        """The step asked for, coarsened where the camera's noise would fill the differences."""
        noise = max(source.noise for source in self._sources)
        if noise < 1:
            return self.step
        least = round(16 * np.log2(noise / NOISE_SHARE))
        return int(max(self.step, min(least, self.step + MOST_COARSENED, self._codec.step_range.coarsest)))

    def _code(self, keyframe: bool, step: int) -> int:
        """Write the payload; returns its size, or -1 if it has no room."""
        if keyframe:
            step = max(step - KEYFRAME_FINER, FINEST)
            head = _HEAD.pack(step) + b"".join(source.ranges for source in self._sources)
        else:
            head = _HEAD.pack(step) + _STATE.pack(_state(self._groups))
        out = self._out[len(head) :]
        self._out[: len(head)] = np.frombuffer(head, np.uint8)
        coder = entropy.new_writer()
        for group, source in zip(self._groups, self._sources, strict=True):
            group.begin(keyframe, self._since_keyframe == 1)
            source.quantize(keyframe, step, self._beta if keyframe else DIFFERENCE_SHAPING * self._beta)
            kind = 0 if keyframe else 1
            failed = entropy.put_blocks(
                group.changes, group.before, group.coded, group.vectors, group.across, keyframe,
                group.probabilities, out, coder,
            ) or entropy.put_levels(
                group.levels, group.lasts, group.steps, group.deltas, group.coded, group.across, step, group.prior,
                group.weights[kind], group.block_weights[kind], group.energy, group.probabilities,
                group.distributions, out, coder, group.sums, group.room, _NO_COUNTS, _NO_COUNTS, False,
            )  # fmt: skip
            if failed:
                return -1
            if self._codec.temporal:
                group.reconstruct(keyframe)
        size = int(entropy.finish(out, coder))
        return size if size < 0 else size + len(head)

    def _why_keyframe(self, reference: int | None, stamp: Stamp) -> KeyframeReason | None:
        if not self._codec.temporal or reference is None or stamp.sequence != next_sequence(reference):
            return "first"
        if self._requested:
            return "requested"
        if self._since_keyframe >= self._codec.keyframe_interval:
            return "periodic"
        return None


_NO_COUNTS = np.zeros((0, 2), np.int64)


class _Source:
    """What only the encoder has of a group: the frame to code, and the search for its vectors and steps."""

    def __init__(self, group: _Group, codec: Feature) -> None:
        self._group, self._effort = group, codec.effort
        self._stacked = np.zeros((group.channels, group.rows, group.columns), np.float32)
        self._samples = np.zeros_like(self._stacked)
        self._rows = np.zeros((4, group.deltas.size * 4), np.float32)
        self._coefficients = np.zeros((16, group.deltas.size), np.float32)
        self._components = min(COMPARED[codec.effort], group.channels)  # to look for motion and noise in
        self._current = motion.framed(group.rows, group.columns, self._components)
        self._motion_room = motion.room_for(self._components)
        self._reference = np.zeros_like(self._current)
        self._last = np.zeros_like(self._current)  # frame, as it was taken
        self._older = np.zeros_like(self._current)
        self._remembered = 0  # frames
        self._is_remembered = False  # the present one
        self._differences = np.zeros(group.deltas.size, np.int64)
        self.noise = 0.0  # standard deviation that most of the last frames' blocks had at least
        self.ranges = b""  # what a keyframe says where there is no calibration
        self._use(group.profile)

    def _use(self, profile: GroupProfile) -> None:
        group = self._group
        self._offset = profile.forward @ profile.mean
        self._predictor = StepPredictor(profile.step_network, self._offset, group.rows // 4, group.across)

    def begin_keyframe(self) -> None:
        """Without calibration, take the ranges of this frame for it and for the differences that follow."""
        if not self._group.calibrated:
            ranges = channel_ranges(self._stacked)
            self.ranges = ranges.astype(">f2").tobytes()
            self._group.use(profile_of(ranges))
            self._use(self._group.profile)
            self._remembered, self._is_remembered = 0, False  # other frames are in units of other ranges

    def stack(self, tensors: Mapping[TensorSpec, FloatArray]) -> None:
        """Take the frame's tensors, flat, by spec."""
        group = self._group
        self._is_remembered = False
        first = 0
        for spec in group.specs:
            tensor = tensors[spec].reshape(-1, group.height, group.width)
            self._stacked[first : first + len(tensor), : group.height, : group.width] = tensor
            first += len(tensor)
        if group.width < group.columns:
            self._stacked[:, :, group.width :] = self._stacked[:, :, group.width - 1 : group.width]
        if group.height < group.rows:
            self._stacked[:, group.height :] = self._stacked[:, group.height - 1 : group.height]

    def transform(self) -> None:
        """Components of the frame, which still have their offset."""
        group = self._group
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(
                group.profile.forward,
                self._stacked.reshape(group.channels, -1),
                out=self._samples.reshape(group.channels, -1),
            )
        _cut_off(self._samples)

    def remember(self) -> None:
        """Keep the frame's first components, as it was taken, for this search and the next frames' noise."""
        if self._is_remembered:
            return
        self._is_remembered = True
        self._older, self._last, self._current = self._last, self._current, self._older
        motion.frame_rounded(self._samples, self._offset, self._current)
        self._remembered += 1

    def search(self, step: int) -> bool:
        """Find each block's vector; tell whether the frame has little to do with the one before."""
        group = self._group
        self.remember()
        motion.frame(group.planes, self._reference)
        vectors = group.vectors
        vectors[:] = 0
        width = int(STEPS[step])
        alike = ALIKE * width * 16 * self._components
        remaining = int(motion.search(
            self._current, self._last, self._reference, vectors, round(BIT_COST * width), round(alike),
            REACH[self._effort], REFINE[self._effort], *self._motion_room,
        ))  # fmt: skip
        if self._is_another_scene(remaining):
            return True
        self._measure_noise()  # not of another scene, which differs from both frames before it alike, as noise does
        return False

    def _is_another_scene(self, remaining: int) -> bool:
        # A coarse reference explains little of any frame: only the frames as they were taken tell a change of scene.
        magnitude = self._magnitude()
        if remaining <= UNEXPLAINED * magnitude:
            return False
        motion.block_differences(self._current, self._last, self._differences)
        return bool(self._differences.sum() > UNRELATED * magnitude)

    def _magnitude(self) -> float:
        """Of the frame's first components, about their mean."""
        if self._group.calibrated:
            return float(motion.magnitude(self._current))
        # Without calibration samples count from their channel's least value, which is far from the mean.
        samples = motion.inside(self._current)
        return float(np.abs(samples - samples.mean((0, 1))).sum())

    def outgrown(self) -> bool:
        """Whether samples of 16 bits cannot say this frame in the ranges of the last keyframe."""
        group = self._group
        if group.calibrated:
            return False
        low, high = channel_ranges(self._stacked).astype(np.float32)
        reach = 32767 * np.diag(group.profile.inverse)
        return bool(((high - group.profile.mean > reach) | (group.profile.mean - low > reach)).any())

    def _measure_noise(self) -> None:
        """Noise is what changes even the calmest blocks, by no more over two frames than over one."""
        if self._remembered < 3:
            return
        over_two = self._calm_difference(self._older)
        over_one = self._calm_difference(self._last)
        per_sample = over_one if over_two < MOVING * over_one else 0.0
        # A normal distribution's standard deviation is 1.25 mean magnitudes; a difference has twice the variance.
        self.noise += 0.25 * (1.25 / np.sqrt(2) * per_sample - self.noise)

    def _calm_difference(self, frame: NDArray[np.int16]) -> float:
        motion.block_differences(self._current, frame, self._differences)
        place = int(CALM * self._differences.size)
        self._differences.partition(place)
        calm = int(self._differences[place])
        return calm / (16 * self._components)

    def quantize(self, keyframe: bool, step: int, beta: float) -> None:
        """Set the group's steps, and the levels of the difference from its prediction."""
        group = self._group
        wanted = self._predictor.changes(self._samples, beta)
        if not keyframe:
            wanted = np.where(np.abs(wanted - group.before) > 2, wanted, group.before)
        group.changes[:] = wanted
        group.set_steps(step)
        if not keyframe:
            group.predict()
        transform.forward(
            self._samples, group.planes, self._offset, (1 / group.deltas).astype(np.float32),
            rounding(group.key_prior, step, KEY_LAMBDA if keyframe else DIFFERENCE_LAMBDA),
            group.levels, group.lasts, self._rows, self._coefficients,
        )  # fmt: skip
        if not keyframe:
            np.greater_equal(group.lasts.max(0), 0, out=group.coded.view(np.bool_))
            group.changes[:] = np.where(group.coded, group.changes, group.before)


_FAR = np.float32(2**20)


def _cut_off(samples: FloatArray) -> None:
    """Bound samples far beyond the 16 bits of a reference frame: finite tensors may overflow their transform."""
    least, greatest = order_range(samples.reshape(-1).view(np.int32))
    far = int(_FAR.view(np.int32))
    if least < ~far or greatest > far:
        np.clip(np.nan_to_num(samples), -_FAR, _FAR, out=samples)


class FeatureDecoder:
    """Decodes keyframes, and differences from the frame it decoded last."""

    def __init__(self, codec: Feature, layout: Layout) -> None:
        self._codec, self._layout = codec, layout
        self._format = codec.packet_format(layout)
        self._groups = _groups(codec, layout)
        self._sequence: int | None = None  # of the reference frame
        self._after_keyframe = False

    def reset(self) -> None:
        """Forget the reference frame: the next packet must be a keyframe."""
        self._sequence = None

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError, and forgets the reference, for anything else."""
        reference, self._sequence = self._sequence, None
        packet = self._format.open(data)
        header = packet.header
        if not header.keyframe and (reference is None or header.sequence != next_sequence(reference)):
            raise MissingReference(header.sequence, reference)
        self._decode(np.frombuffer(packet.sections[0], np.uint8), header.keyframe)
        self._after_keyframe = header.keyframe
        self._sequence = header.sequence
        tensors: dict[str, FloatArray] = {}
        for group in self._groups:
            tensors |= _restore(group)
        return DecodedFrame(header, {spec.name: tensors[spec.name] for spec in header.layout})

    def _decode(self, payload: Payload, keyframe: bool) -> None:
        step = int(payload[0])
        if not FINEST <= step <= COARSEST:
            raise CorruptPacket(f"step {step} is not {FINEST} to {COARSEST}")
        at = _HEAD.size
        if not keyframe:
            if len(payload) < at + _STATE.size:
                raise CorruptPacket("it ends before the checksum of its reference")
            (expected,) = _STATE.unpack(payload[at : at + _STATE.size].tobytes())
            found = _state(self._groups)
            if expected != found:
                raise StateMismatch(expected, found)
            at += _STATE.size
        else:
            for group in self._groups:
                if not group.calibrated:
                    ranges = payload[at : at + 4 * group.channels].tobytes()
                    at += 4 * group.channels
                    group.use(profile_of(parse_ranges(ranges, group.channels)))
        data = payload[at:]
        coder = np.zeros(3, np.uint64)
        entropy.start(data, coder)
        for group in self._groups:
            group.begin(keyframe, self._after_keyframe)
            if entropy.take_blocks(
                group.changes, group.before, group.coded, group.vectors, group.across, keyframe,
                group.probabilities, data, coder,
            ):  # fmt: skip
                raise CorruptPacket("a block's vector or step is out of range")
            group.set_steps(step)
            if not keyframe:
                group.predict()
            kind = 0 if keyframe else 1
            if entropy.take_levels(
                group.levels, group.lasts, group.steps, group.deltas, group.coded, group.across, step, group.prior,
                group.weights[kind], group.block_weights[kind], group.energy, group.probabilities,
                group.distributions, data, coder, group.sums, group.room,
            ):  # fmt: skip
                raise CorruptPacket("a level is out of range, or the payload ends before its levels do")
            group.reconstruct(keyframe)
        read = int(coder[2])
        if not read - 8 <= len(data) <= read:
            raise CorruptPacket(f"its levels end at byte {read}, its payload at {len(data)}")


def _restore(group: _Group) -> dict[str, FloatArray]:
    """The tensors that the reference frame stands for."""
    planes = group.planes.reshape(group.channels, -1).astype(np.float32)
    stacked = group.profile.inverse @ planes
    stacked += group.profile.mean[:, None]
    stacked = stacked.reshape(group.channels, group.rows, group.columns)[:, : group.height, : group.width]
    tensors, first = {}, 0
    for spec in group.specs:
        channels = channels_of(spec)
        tensors[spec.name] = np.ascontiguousarray(stacked[first : first + channels]).reshape(spec.shape)
        first += channels
    return tensors
