"""Golden packets, made by `python -m tests.vectors.make`: bytes and arrays of this version for good."""

from __future__ import annotations

import numpy as np
import pytest

from codec.packet import PacketHeader, read_packets
from codec.spec import CodecSpec
from tests.codec import reference_rle as reference
from tests.codec.samples import tables
from tests.vectors.make import CODECS, VECTORS, features, layout, packets

STAMPS = [((2**32 - 2 + i) % 2**32, 10**12 + 40_000_000 * i, 480, 640) for i in range(4)]


@pytest.mark.parametrize("name", CODECS)
def test_encoder_writes_the_golden_bytes(name):
    assert b"".join(packets(CODECS[name])) == (VECTORS / f"{name}.packets").read_bytes()


@pytest.mark.parametrize("name", CODECS)
def test_golden_packets_decode_to_the_golden_arrays(name):
    decoder = CodecSpec.parse(CODECS[name]).decoder(layout())
    frames = [decoder.decode(packet).tensors for packet in read_packets(VECTORS / f"{name}.packets")]
    with np.load(VECTORS / f"{name}.npz", allow_pickle=False) as golden:
        assert list(golden) == [tensor.name for tensor in layout()]
        for tensor in golden:
            assert np.stack([frame[tensor] for frame in frames]).tobytes() == golden[tensor].tobytes()


@pytest.mark.parametrize("name", CODECS)
def test_the_reference_writes_the_golden_bytes(name):
    frames = [tables(frame) for frame in features()]
    golden = list(read_packets(VECTORS / f"{name}.packets"))
    for index, (packet, stamp) in enumerate(zip(golden, STAMPS, strict=True)):
        header = PacketHeader.parse(packet)
        if name == "raw":
            expected = reference.raw_packet(frames[index], stamp)
        elif header.keyframe:
            expected = reference.rle_packet(frames[index], header.parameters[0], stamp)
        else:
            expected = reference.difference_packet(
                frames[index], frames[index - 1], header.parameters[0], stamp
            )
        assert packet == expected


def test_the_temporal_vector_has_both_kinds_of_packet():
    golden = read_packets(VECTORS / "rle-4-temporal.packets")
    assert [PacketHeader.parse(packet).keyframe for packet in golden] == [True, False, False, True]
