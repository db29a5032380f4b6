"""What stands in for a calibration profile where there is none: the ranges of a keyframe's own channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptPacket
from codec.feature.contexts import (
    PREVIOUS_BLOCK,
    PREVIOUS_LEVEL,
    ZIGZAG,
    default_distributions,
    default_probabilities,
)
from codec.feature.profile import GroupProfile
from codec.feature.rotation import no_rotation
from codec.feature.step_network import StepNetwork
from codec.layout import FloatArray

Ranges = NDArray[np.float16]  # (2, C): least and greatest of each channel

SPAN = 8192.0  # what a channel's range is stretched to, in units of the transformed samples

_WEIGHTS = (160, 24, 4, 24, 0)  # about what calibration finds for YOLOv5, in 1/256
_BLOCK_WEIGHTS = (20, 60, 5, 90, 12, 0)


def channel_ranges(stacked: FloatArray) -> Ranges:
    """Least and greatest of each channel of (C, H, W), rounded to what a keyframe can say."""
    flat = stacked.reshape(len(stacked), -1)
    largest = np.finfo(np.float16).max
    ranges = np.stack((flat.min(1), flat.max(1)))
    np.clip(ranges, -largest, largest, out=ranges)
    return ranges.astype(np.float16)


def parse_ranges(data: bytes, channels: int) -> Ranges:
    """Ranges as a keyframe says them, big-endian. Raises CorruptPacket."""
    if len(data) != 4 * channels:
        raise CorruptPacket("it ends before the ranges of its channels")
    ranges = np.frombuffer(data, ">f2").astype(np.float16).reshape(2, channels)
    if not np.isfinite(ranges).all() or (ranges[0] > ranges[1]).any():
        raise CorruptPacket("a channel's range is none")
    return ranges


def profile_of(ranges: Ranges) -> GroupProfile:
    """A profile without statistics: each channel by itself, from its least value, its range stretched to SPAN."""
    low, high = ranges.astype(np.float32)
    span = np.where(high > low, high - low, np.float32(1))
    channels = len(low)
    prior = [max(1, round(SPAN * (0.5 if u + v == 0 else 0.2 / (1 + u + v)))) for u, v in ZIGZAG]
    weights = np.repeat(np.array(_WEIGHTS, np.uint16)[:, None], 16, 1)
    temporal = weights.copy()
    temporal[4] = PREVIOUS_LEVEL
    temporal_blocks = np.array((*_BLOCK_WEIGHTS[:5], PREVIOUS_BLOCK), np.uint16)
    return GroupProfile(
        mean=low,
        forward=np.diag(np.float32(SPAN) / span),
        inverse=np.diag(span / np.float32(SPAN)),
        rotation=no_rotation(channels),
        prior=np.tile(np.array(prior, np.uint16), (channels, 1)),
        weights=np.stack((weights, temporal)),
        block_weights=np.stack((np.array(_BLOCK_WEIGHTS, np.uint16), temporal_blocks)),
        probabilities=default_probabilities(),
        distributions=default_distributions(),
        step_network=StepNetwork.flat(channels),
        step_offset=np.zeros(1, np.int16),
    )
