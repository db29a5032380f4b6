"""Golden packets, made by `python -m tests.vectors.make`: bytes and arrays of this version for good."""

from __future__ import annotations

import numpy as np
import pytest

from codec.feature.profile import Profile, channels_of, grouped, plane
from codec.packet import is_keyframe
from codec.packet_file import read_packets
from codec.spec import parse_codec
from tests.codec import reference_feature
from tests.codec import reference_rle as reference
from tests.codec.samples import tables
from tests.vectors.make import (
    CODECS,
    FEATURE,
    FEATURE_LAYOUT,
    VECTORS,
    decode_feature,
    features,
    layout,
    packets,
)

STAMPS = [((2**32 - 2 + i) % 2**32, 10**12 + 40_000_000 * i, 480, 640) for i in range(4)]


@pytest.mark.parametrize("name", CODECS)
def test_encoder_writes_the_golden_bytes(name):
    assert packets(CODECS[name]) == list(read_packets(VECTORS / f"{name}.packets"))


@pytest.mark.parametrize("name", CODECS)
def test_golden_packets_decode_to_the_golden_arrays(name):
    decoder = parse_codec(CODECS[name]).decoder(layout())
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
        bits = int(name[4]) if name.startswith("rle") else 0
        if name == "raw":
            expected = reference.raw_packet(frames[index], stamp)
        elif is_keyframe(packet):
            expected = reference.rle_packet(frames[index], bits, stamp)
        else:
            expected = reference.difference_packet(
                frames[index], frames[index - 1], bits, stamp, STAMPS[index - 1]
            )
        assert packet == expected


def test_the_temporal_vector_has_both_kinds_of_packet():
    golden = read_packets(VECTORS / "rle-4-temporal.packets")
    assert [is_keyframe(packet) for packet in golden] == [True, False, False, True]


def golden_feature(name):
    with np.load(VECTORS / f"{name}.npz", allow_pickle=False) as arrays:
        return list(read_packets(VECTORS / f"{name}.packets")), dict(arrays)


def slow_feature_decoder(name):
    profile = (VECTORS / "feature.profile").read_bytes() if name == "feature" else None
    sizes = [(sum(map(channels_of, specs)), *plane(specs[0])) for specs in grouped(FEATURE_LAYOUT)]
    return reference_feature.Decoder(profile, sizes)


@pytest.mark.parametrize("name", FEATURE)
def test_golden_feature_packets_decode_to_the_golden_arrays(name):
    golden, expected = golden_feature(name)
    decoded = decode_feature(name, golden)
    assert list(decoded) == list(expected)
    for key, array in expected.items():
        if key.startswith("planes"):
            assert np.array_equal(decoded[key], array)
        else:
            assert np.allclose(decoded[key], array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FEATURE)
def test_the_reference_decodes_the_golden_feature_packets(name):
    golden, expected = golden_feature(name)
    decoder = slow_feature_decoder(name)
    for index, packet in enumerate(golden):
        for group, planes in enumerate(decoder.decode(packet)):
            assert np.array_equal(planes, expected[f"planes {group}"][index])
        large, flat = decoder.tensors()
        assert np.allclose(large[:3], expected["4.m"][index], rtol=1e-4, atol=1e-4)
        assert np.allclose(large[3:], expected["4.cv2"][index], rtol=1e-4, atol=1e-4)
        assert np.allclose(flat.ravel(), expected["9"][index], rtol=1e-4, atol=1e-4)


def test_the_golden_profile_is_packed_as_it_was():
    data = (VECTORS / "feature.profile").read_bytes()
    assert Profile.parse(data).pack() == data


@pytest.mark.parametrize("name", FEATURE)
def test_the_feature_vectors_have_every_kind_of_frame(name):
    """Keyframes, differences with and without motion, blocks and whole frames without levels, escapes."""
    golden, _ = golden_feature(name)
    decoder = slow_feature_decoder(name)
    seen = set()

    class Watching(reference_feature.RangeDecoder):
        def bits(self, count):
            value = super().bits(count)
            seen.add("escape" if count == 1 and value else "plain")
            return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_feature, "RangeDecoder", Watching)
        for packet in golden:
            key = is_keyframe(packet)
            decoder.decode(packet)
            state = decoder.states[0]
            seen.add("keyframe" if key else "motion" if any(map(any, state.vectors)) else "still")
            seen.add("all coded" if all(state.coded) else "some coded" if any(state.coded) else "none coded")
    assert {"keyframe", "motion", "still", "escape", "all coded", "some coded", "none coded"} <= seen
