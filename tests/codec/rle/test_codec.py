"""The run-length codec: the reference's packets byte for byte, prediction without drift, keyframes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import (
    BitstreamError,
    CorruptPacket,
    MissingReference,
    NonFiniteTensor,
    ShapeMismatch,
    UnsupportedPacket,
)
from codec.packet import PacketHeader, Stamp, is_keyframe
from codec.spec import parse_codec
from tests.codec import reference_rle as reference
from tests.codec.samples import LAYOUT, STAMP, any_frames, features, layout_of, tables, video


def spec(**parameters):
    return parse_codec("rle:" + ",".join(f"{name}={value}" for name, value in parameters.items()))


def temporal(bits=4, keyframe_interval=250):
    codec = spec(bits=bits, temporal="true", keyframe_interval=keyframe_interval)
    return codec.encoder(LAYOUT), codec.decoder(LAYOUT)


def encode_all(encoder, video_frames, first=0):
    return [encoder.encode(frame, Stamp((first + i) % 2**32, i)) for i, frame in enumerate(video_frames)]


def expected_tensors(frame, bits):
    return {
        table.name: np.array(reference.dequantize(reference.quantize(table.values, bits), bits), np.float32)
        for table in tables(frame)
    }


def assert_decodes(decoded, frame, bits):
    assert list(decoded.tensors) == list(frame)
    for name, values in expected_tensors(frame, bits).items():
        assert decoded.tensors[name].dtype == np.float32
        assert decoded.tensors[name].shape == frame[name].shape
        assert np.array_equal(decoded.tensors[name].ravel(), values)


@given(any_frames(), st.integers(2, 8), st.sampled_from(["false", "true"]))
def test_keyframes_are_the_reference_ones(video_frames, bits, is_temporal):
    frame = video_frames[0]
    codec = spec(bits=bits, temporal=is_temporal)
    layout = layout_of(frame)
    data = codec.encoder(layout).encode(frame, Stamp(*STAMP)).data
    assert data == reference.rle_packet(tables(frame), bits, STAMP)
    assert len(data) <= codec.packet_format(layout).max_packet_bytes
    assert_decodes(codec.decoder(layout).decode(data), frame, bits)


@given(any_frames(count=2), st.integers(2, 8))
def test_differences_are_the_reference_ones_and_only_sent_if_smaller(video_frames, bits):
    before, frame = video_frames
    codec = spec(bits=bits, temporal="true")
    encoder, decoder = codec.encoder(layout_of(frame)), codec.decoder(layout_of(frame))
    decoder.decode(encoder.encode(before, Stamp(0, 0)).data)
    coded = encoder.encode(frame, Stamp(1, 0))
    key = reference.rle_packet(tables(frame), bits, (1, 0, 0, 0))
    difference = reference.difference_packet(tables(frame), tables(before), bits, (1, 0, 0, 0), (0, 0, 0, 0))
    assert_decodes(decoder.decode(coded.data), frame, bits)
    # The packet that the encoder did not choose decodes as well.
    decoder.reset()
    decoder.decode(reference.rle_packet(tables(before), bits, (0, 0, 0, 0)))
    decoded = decoder.decode(difference)
    assert_decodes(decoded, frame, bits)
    is_smaller = sum(decoded.header.section_bytes) < sum(PacketHeader.parse(key).section_bytes)
    assert coded.data == (difference if is_smaller else key)
    assert coded.keyframe_reason == (None if is_smaller else "smaller")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_long_chain_does_not_drift(bits):
    """Every frame decodes to exactly what it would as a keyframe, however long after one."""
    encoder, decoder = temporal(bits, keyframe_interval=1000)
    still = spec(bits=bits)
    video_frames = video(3, 60)
    packets = encode_all(encoder, video_frames)
    assert sum(packet.keyframe for packet in packets) < 30
    for packet, frame in zip(packets, video_frames, strict=True):
        alone = still.decoder(LAYOUT).decode(still.encoder(LAYOUT).encode(frame, Stamp(0, 0)).data)
        decoded = decoder.decode(packet.data)
        for name, tensor in alone.tensors.items():
            assert np.array_equal(decoded.tensors[name], tensor)


def test_arrays_of_any_stride_and_alignment_are_taken():
    frame = features(2)
    shifted = np.frombuffer(b"\0" + frame["4.cv2"].tobytes(), np.float32, offset=1)
    assert not shifted.flags.aligned
    odd = {"4.cv2": shifted, "4.m": np.asfortranarray(frame["4.m"])}
    encoder = spec(bits=5).encoder(LAYOUT)
    assert encoder.encode(odd, Stamp(0, 0)) == encoder.encode(frame, Stamp(0, 0))


def test_read_only_arrays_are_taken():
    frame = features(2)
    for tensor in frame.values():
        tensor.flags.writeable = False
    assert spec(bits=5).encoder(LAYOUT).encode(frame, Stamp(0, 0)).keyframe


def test_packets_and_tensors_outlive_the_next_frame():
    for encoder, decoder in [temporal(), (spec(bits=4).encoder(LAYOUT), spec(bits=4).decoder(LAYOUT))]:
        first, second = features(1), features(2)
        packets = [encoder.encode(first, Stamp(0, 0)), encoder.encode(second, Stamp(1, 0))]
        decoded = [decoder.decode(packet.data) for packet in packets]
        assert_decodes(decoded[0], first, 4)
        assert_decodes(decoded[1], second, 4)
        # The caller owns what it got; the reference does not follow.
        decoded[1].tensors["4.m"][:] = 0
        assert_decodes(decoder.decode(encoder.encode(second, Stamp(2, 0)).data), second, 4)


@pytest.mark.parametrize("text", ["raw", "rle:bits=4", "rle:bits=4,temporal=true"])
class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "tensor", "message"),
        [
            ("4.m", np.zeros((2, 3, 5), np.float32), r"\(2, 3, 4\).*\(2, 3, 5\)"),
            ("4.m", np.zeros((1, 2, 3, 4), np.float32), r"\(2, 3, 4\)"),
            ("4.m", np.zeros((2, 3, 4)), "float64"),
            ("4.m", np.zeros((2, 3, 4), ">f4"), ">f4"),
            ("4.n", np.zeros((2, 3, 4), np.float32), "4.n.*no such tensor"),
        ],
    )
    def test_encoder_refuses_other_tensors(self, text, name, tensor, message):
        encoder = parse_codec(text).encoder(LAYOUT)
        with pytest.raises(ShapeMismatch, match=message):
            encoder.encode({**features(1), name: tensor}, Stamp(0, 0))

    def test_encoder_refuses_a_missing_tensor(self, text):
        frame = features(1)
        del frame["4.cv2"]
        with pytest.raises(ShapeMismatch, match="no such tensor"):
            parse_codec(text).encoder(LAYOUT).encode(frame, Stamp(0, 0))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_encoder_refuses_what_is_not_finite(self, text, bad):
        frame = features(1)
        frame["4.cv2"][3] = bad
        with pytest.raises(NonFiniteTensor, match=r"4\.cv2"):
            parse_codec(text).encoder(LAYOUT).encode(frame, Stamp(0, 0))


class TestKeyframes:
    def test_first_frame_and_no_other_if_differences_are_small(self):
        packets = encode_all(temporal()[0], [features(1)] * 5)
        assert [packet.keyframe_reason for packet in packets] == ["first", None, None, None, None]
        assert [is_keyframe(packet.data) for packet in packets] == [True] + [False] * 4
        assert len(packets[1].data) < len(packets[0].data)

    def test_periodically(self):
        packets = encode_all(temporal(keyframe_interval=3)[0], [features(1)] * 7)
        assert [packet.keyframe_reason for packet in packets] == ["first", *(None, None, "periodic") * 2]

    def test_an_interval_of_one_is_all_keyframes(self):
        packets = encode_all(temporal(keyframe_interval=1)[0], [features(1)] * 3)
        assert [packet.keyframe_reason for packet in packets] == ["first", "periodic", "periodic"]

    def test_on_demand_once(self):
        encoder, _ = temporal()
        encode_all(encoder, [features(1)] * 2)
        encoder.force_keyframe()
        packets = encode_all(encoder, [features(1)] * 2, first=2)
        assert [packet.keyframe_reason for packet in packets] == ["requested", None]

    def test_where_a_difference_is_not_smaller(self):
        frames_apart = [{name: np.zeros_like(x) for name, x in features(1).items()}] * 2
        packets = encode_all(temporal()[0], frames_apart)
        assert [packet.keyframe_reason for packet in packets] == ["first", "smaller"]

    @pytest.mark.parametrize("failure", [{}, {**features(1), "4.m": np.full((2, 3, 4), np.nan, np.float32)}])
    def test_after_a_frame_that_failed(self, failure):
        encoder, _ = temporal()
        encode_all(encoder, [features(1)] * 2)
        with pytest.raises((ShapeMismatch, NonFiniteTensor)):
            encoder.encode(failure, Stamp(2, 0))
        assert encoder.encode(features(1), Stamp(2, 0)).keyframe_reason == "first"

    def test_after_a_gap_in_the_sequence(self):
        encoder, _ = temporal()
        encode_all(encoder, [features(1)] * 2)
        assert encoder.encode(features(1), Stamp(3, 0)).keyframe_reason == "first"

    def test_sequence_numbers_go_round(self):
        encoder, decoder = temporal()
        packets = encode_all(encoder, [features(1)] * 3, first=2**32 - 2)
        assert [packet.keyframe for packet in packets] == [True, False, False]
        assert [decoder.decode(packet.data).header.sequence for packet in packets] == [
            2**32 - 2,
            2**32 - 1,
            0,
        ]

    def test_without_prediction_every_packet_is_one(self):
        encoder = spec(bits=4).encoder(LAYOUT)
        encoder.force_keyframe()
        packets = encode_all(encoder, [features(1)] * 3)
        assert [(packet.keyframe, packet.keyframe_reason) for packet in packets] == [(True, None)] * 3


class TestReferences:
    """A decoder never predicts from a frame that is not the one before."""

    @pytest.fixture
    def packets(self):
        return [packet.data for packet in encode_all(temporal()[0], [features(1)] * 4)]

    def test_refuses_a_difference_first(self, packets):
        _, decoder = temporal()
        with pytest.raises(MissingReference) as refused:
            decoder.decode(packets[1])
        assert (refused.value.sequence, refused.value.held) == (1, None)

    def test_refuses_a_difference_after_a_gap_and_until_a_keyframe(self, packets):
        _, decoder = temporal()
        decoder.decode(packets[0])
        with pytest.raises(MissingReference) as refused:
            decoder.decode(packets[2])
        assert (refused.value.sequence, refused.value.held) == (2, 0)
        for packet in packets[1:]:
            with pytest.raises(MissingReference):
                decoder.decode(packet)
        decoder.decode(packets[0])
        assert decoder.decode(packets[1]).header.sequence == 1

    def test_refuses_the_same_difference_twice(self, packets):
        _, decoder = temporal()
        decoder.decode(packets[0])
        decoder.decode(packets[1])
        with pytest.raises(MissingReference):
            decoder.decode(packets[1])

    @pytest.mark.parametrize(
        "damage", [lambda p: p[:-1], lambda p: p[:-1] + bytes((p[-1] ^ 1,)), lambda _: b""]
    )
    def test_any_error_ends_the_chain(self, packets, damage):
        _, decoder = temporal()
        decoder.decode(packets[0])
        with pytest.raises(BitstreamError):
            decoder.decode(damage(packets[1]))
        with pytest.raises(MissingReference):
            decoder.decode(packets[1])

    def test_an_error_in_the_second_section_leaves_no_half_of_a_reference(self):
        encoder, decoder = temporal()
        packets = [packet.data for packet in encode_all(encoder, [features(1)] * 2)]
        bad = [reference.quantize(table.values, 4) for table in tables(features(1))]
        bad[1].minimum, bad[1].maximum = 1.0, 0.0
        sections = [reference.section(coded, coded.levels, 4) for coded in bad]
        packet = reference.packet(tables(features(1)), sections, 1, b"\x04", (0, 0, 0, 0))
        decoder.decode(packets[0])
        with pytest.raises(CorruptPacket, match="range"):
            decoder.decode(packet)
        with pytest.raises(MissingReference):
            decoder.decode(packets[1])

    def test_reset_forgets(self, packets):
        _, decoder = temporal()
        decoder.decode(packets[0])
        decoder.reset()
        with pytest.raises(MissingReference):
            decoder.decode(packets[1])

    def test_without_prediction_a_difference_is_refused_as_such(self, packets):
        with pytest.raises(UnsupportedPacket, match="keyframes only"):
            spec(bits=4).decoder(LAYOUT).decode(packets[1])
