"""The raw codec: lossless, the reference's packets byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from codec.errors import CorruptPacket
from codec.packet import Stamp
from codec.spec import parse_codec
from tests.codec import reference_rle as reference
from tests.codec.samples import LAYOUT, STAMP, any_frames, features, layout_of, tables

RAW = parse_codec("raw")


@given(any_frames())
def test_every_coefficient_comes_back_bit_for_bit(video_frames):
    frame = video_frames[0]
    layout = layout_of(frame)
    packet = RAW.encoder(layout).encode(frame, Stamp(*STAMP))
    assert packet.data == reference.raw_packet(tables(frame), STAMP)
    assert packet.keyframe
    assert len(packet.data) == RAW.packet_format(layout).max_packet_bytes
    for name, tensor in RAW.decoder(layout).decode(packet.data).tensors.items():
        assert tensor.dtype == np.float32
        assert tensor.tobytes() == frame[name].tobytes()
        assert tensor.flags.writeable


@pytest.mark.parametrize("pattern", ["7f800000", "ff800000", "7fc00000", "ffffffff"])
def test_decoder_refuses_what_is_not_finite(pattern):
    values = tables(features(1))
    sections = [b"".join(reference.struct.pack(">f", x) for x in table.values) for table in values]
    sections[1] = bytes.fromhex(pattern) + sections[1][4:]
    packet = reference.packet(values, sections, 0, b"", STAMP)
    with pytest.raises(CorruptPacket, match=r"4\.cv2"):
        RAW.decoder(LAYOUT).decode(packet)
