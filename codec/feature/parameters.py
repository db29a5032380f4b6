"""What the feature codec may be asked for, and the tensors that it takes (docs/bitstream.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from codec.errors import BadCodecSpec, BadLayout
from codec.feature.profile import MAX_CHANNELS as MAX_GROUP_CHANNELS
from codec.feature.profile import Profile, channels_of, grouped, plane
from codec.interface import StepRange, check_keyframe_interval
from codec.layout import Layout
from codec.packet import PacketFormat

MAX_QUALITY = 10
PARAMETER_BYTES = 8
MAX_SIDE = 512
MAX_CHANNELS = 4096
MAX_SAMPLES = 2**24
"""Limits of a layout: extents of a plane, channels and samples of all tensors, sides rounded up to whole blocks.

They bound memory and time, and keep every sum over the blocks of a plane within 32 bits.
"""

QUALITY: Mapping[int, tuple[int, float]] = {
    1: (218, 1.1), 2: (208, 1.1), 3: (198, 1.1), 4: (190, 1.1), 5: (181, 1.1), 6: (168, 1.1),
    7: (164, 1.1), 8: (152, 1.0), 9: (136, 0.75), 10: (116, 0.5),
}  # fmt: skip
"""Step, and how far it follows each block's sensitivity: small objects need less of that when all is fine."""

STEP_FIELD = struct.Struct(">B")  # what a payload starts with
CHECKSUM_FIELD = struct.Struct(">I")  # of the reference frame; in differences it follows


@dataclass(frozen=True, slots=True)
class Parameters:
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

    def packet_format(self, layout: Layout) -> PacketFormat:
        """The packets that this codec makes of a layout. Raises BadLayout."""
        _check(layout)
        most = payload_bound(layout)
        return PacketFormat(
            self.codec_id,
            bytes.fromhex(self.profile.hash[: 2 * PARAMETER_BYTES])
            if self.profile
            else bytes(PARAMETER_BYTES),
            self.temporal,
            layout,
            ((STEP_FIELD.size, most), *((0, 0) for _ in layout[1:])),
        )


def payload_bound(layout: Layout) -> int:
    """Bytes that no payload exceeds: four for each sample, and some for a start. The longest level has 31 bits."""
    return 4 * _samples(layout) + 1024


def _samples(layout: Layout) -> int:
    return sum(
        spec.size // (h * w) * whole_blocks(h) * whole_blocks(w) for spec in layout for h, w in [plane(spec)]
    )


def whole_blocks(side: int) -> int:
    """A side of a plane rounded up to whole blocks."""
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
