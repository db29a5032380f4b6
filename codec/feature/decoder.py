"""Packets of the feature codec in, tensors out (docs/bitstream.md)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptPacket, ReferenceMismatch
from codec.feature.blocks import decode_blocks
from codec.feature.group import Group, groups_of, reference_checksum
from codec.feature.levels import decode_levels
from codec.feature.parameters import CHECKSUM_FIELD, STEP_FIELD, Parameters
from codec.feature.profile import channels_of
from codec.feature.range_coder import start_decoder
from codec.feature.transform import COARSEST, FINEST
from codec.feature.uncalibrated import parse_ranges, profile_of
from codec.interface import DecodedFrame
from codec.layout import FloatArray, Layout
from codec.packet_stream import PacketReader

Payload: TypeAlias = NDArray[np.uint8]


class FeatureDecoder:
    """Decodes keyframes, and differences from the frame it decoded last."""

    def __init__(self, parameters: Parameters, layout: Layout) -> None:
        self._layout = layout
        self._reader = PacketReader(parameters.packet_format(layout))
        self.groups = groups_of(parameters.profile, layout)  # which hold the reference frame
        self._after_keyframe = False

    def reset(self) -> None:
        """Forget the reference frame: the next packet must be a keyframe."""
        self._reader.reset()

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError, and forgets the reference, for anything else."""
        packet = self._reader.open(data)
        header = packet.header
        self._decode(np.frombuffer(packet.sections[0], np.uint8), header.keyframe)
        self._after_keyframe = header.keyframe
        self._reader.accept(packet)
        tensors: dict[str, FloatArray] = {}
        for group in self.groups:
            tensors |= _restore(group)
        return DecodedFrame(header, {spec.name: tensors[spec.name] for spec in header.layout})

    def _decode(self, payload: Payload, keyframe: bool) -> None:
        step = int(payload[0])
        if not FINEST <= step <= COARSEST:
            raise CorruptPacket(f"step {step} is not {FINEST} to {COARSEST}")
        at = STEP_FIELD.size
        if not keyframe:
            if len(payload) < at + CHECKSUM_FIELD.size:
                raise CorruptPacket("it ends before the checksum of its reference")
            (expected,) = CHECKSUM_FIELD.unpack(payload[at : at + CHECKSUM_FIELD.size].tobytes())
            actual = reference_checksum(self.groups)
            if expected != actual:
                raise ReferenceMismatch(expected, actual)
            at += CHECKSUM_FIELD.size
        else:
            for group in self.groups:
                if not group.calibrated:
                    ranges = payload[at : at + 4 * group.channels].tobytes()
                    at += 4 * group.channels
                    group.use(profile_of(parse_ranges(ranges, group.channels)))
        data = payload[at:]
        coder = np.zeros(3, np.uint64)
        start_decoder(data, coder)
        for group in self.groups:
            group.begin(keyframe, self._after_keyframe)
            if decode_blocks(group.frame_blocks, keyframe, group.probabilities, data, coder):
                raise CorruptPacket("a block's vector or step is out of range")
            group.set_steps(step)
            if not keyframe:
                group.predict()
            if decode_levels(
                group.frame_levels, group.contexts(keyframe), step, data, coder, group.workspace
            ):
                raise CorruptPacket("a level is out of range, or the payload ends before its levels do")
            group.reconstruct(keyframe)
        read = int(coder[2])
        if not read - 8 <= len(data) <= read:
            raise CorruptPacket(f"its levels end at byte {read}, its payload at {len(data)}")


def _restore(group: Group) -> dict[str, FloatArray]:
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
