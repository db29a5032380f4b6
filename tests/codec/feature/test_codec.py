"""The feature codec: the reference decoder bit for bit, prediction without drift, recovery, hostile packets."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import (
    BadCodecSpec,
    BadLayout,
    BitstreamError,
    CorruptPacket,
    MissingReference,
    NonFiniteTensor,
    ProfileMismatch,
    ShapeMismatch,
    StateMismatch,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.feature import encoder as encoder_module
from codec.feature import parameters as parameters_module
from codec.feature.codec import Feature
from codec.feature.encoder import MOST_COARSENED
from codec.feature.parameters import payload_bound
from codec.feature.profile import Profile, channels_of, grouped, plane
from codec.feature.transform import COARSEST, FINEST
from codec.layout import TensorSpec
from codec.packet import PacketHeader, Stamp
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_codec, make_profile
from tests.codec.forge import ALPHABET, Forger, payload_of, random_choice, reseal, with_payload
from tests.codec.reference_feature import DIFFERENCE, KEY, Refused
from tests.codec.samples import features, video

SMALL = (TensorSpec("4.m", (4, 8, 12)),)
ODD = (  # two groups of padded planes, one of them of two tensors, and one without planes
    TensorSpec("4.m", (3, 9, 14)),
    TensorSpec("6", (4, 3, 5)),
    TensorSpec("4.cv2", (2, 9, 14)),
    TensorSpec("9", (5,)),
)


def pair(layout=SMALL, seed=0, **parameters):
    codec = make_codec(layout, seed, **parameters)
    return codec.encoder(layout), codec.decoder(layout)


def encode_all(encoder, frames, first=0):
    return [encoder.encode(frame, Stamp((first + i) % 2**32, i)) for i, frame in enumerate(frames)]


def slow_decoder(codec, layout):
    profile = codec.profile.pack() if isinstance(codec.profile, Profile) else None
    return reference.Decoder(
        profile, [(sum(map(channels_of, specs)), *plane(specs[0])) for specs in grouped(layout)]
    )


def pans(seed, count, layout=SMALL):
    """A picture that moves by a sample a frame, with some noise."""
    rng = np.random.default_rng(seed)
    wide = {
        spec.name: smooth(rng.normal(size=(*spec.shape[:-1], spec.shape[-1] + count)))
        if len(spec.shape) > 2
        else rng.normal(size=spec.shape)
        for spec in layout
    }
    return [
        {
            spec.name: (
                (wide[spec.name][..., i : i + spec.shape[-1]] if len(spec.shape) > 2 else wide[spec.name])
                + rng.normal(0, 0.01, spec.shape)
            ).astype(np.float32)
            for spec in layout
        }
        for i in range(count)
    ]


def smooth(x):
    return (np.roll(x, 1, -1) + np.roll(x, 1, -2) + x) / 1.5


def assert_equals_the_slow_decoder(codec, layout, packets):
    decoder, slow = codec.decoder(layout), slow_decoder(codec, layout)
    for packet in packets:
        decoded = decoder.decode(packet)
        planes = slow.decode(packet)
        for group, expected in zip(decoder.groups, planes, strict=True):
            assert np.array_equal(group.planes, expected)
        restored = {}
        for specs, tensors in zip(grouped(layout), slow.tensors(), strict=True):
            first = 0
            for spec in specs:
                channels = channels_of(spec)
                restored[spec.name] = tensors[first : first + channels].reshape(spec.shape)
                first += channels
        assert list(decoded.tensors) == [spec.name for spec in layout]
        for spec in layout:
            tensor = decoded.tensors[spec.name]
            assert tensor.dtype == np.float32
            assert tensor.shape == spec.shape
            assert np.allclose(tensor, restored[spec.name], rtol=1e-4, atol=1e-4)


# --- what the encoder makes ---


@pytest.mark.parametrize("quality", range(1, 11))
@pytest.mark.parametrize("layout", [SMALL, ODD], ids=["small", "odd"])
def test_the_slow_decoder_agrees_bit_for_bit(layout, quality):
    codec = make_codec(layout, quality, quality=quality, keyframe_interval=4)
    frames = video(quality, 3, layout) + pans(quality, 4, layout)
    packets = [packet.data for packet in encode_all(codec.encoder(layout), frames)]
    assert_equals_the_slow_decoder(codec, layout, packets)


def test_differences_of_the_test_frames_have_vectors_and_blocks_without_levels():
    """What the comparison with the slow decoder would otherwise not see."""
    encoder, decoder = pair(ODD, 2)
    vectors = skipped = 0
    for packet in encode_all(encoder, video(2, 3, ODD) + pans(2, 4, ODD)):
        decoder.decode(packet.data)
        vectors += sum(int(group.vectors.any()) for group in decoder.groups)
        skipped += sum(int((group.coded == 0).any()) for group in decoder.groups)
    assert vectors
    assert skipped


@pytest.mark.parametrize("layout", [SMALL, ODD], ids=["small", "odd"])
def test_the_slow_decoder_agrees_without_a_profile(layout):
    codec = Feature(quality=9, keyframe_interval=3)
    frames = [*video(9, 3, layout), *pans(9, 3, layout)]
    frames[3:3] = [{name: 0 * tensor for name, tensor in frames[0].items()}]
    packets = encode_all(codec.encoder(layout), frames)
    assert any(not packet.keyframe for packet in packets)
    assert_equals_the_slow_decoder(codec, layout, [packet.data for packet in packets])


@pytest.mark.parametrize("effort", range(4))
def test_every_effort_decodes(effort):
    codec = make_codec(ODD, 5, effort=effort, quality=9)
    packets = encode_all(codec.encoder(ODD), pans(3, 4, ODD))
    assert_equals_the_slow_decoder(codec, ODD, [packet.data for packet in packets])


def test_a_long_chain_stays_near_the_frames():
    encoder, decoder = pair(quality=9, keyframe_interval=1000)
    frames = pans(1, 40)
    errors = []
    for packet, frame in zip(encode_all(encoder, frames), frames, strict=True):
        decoded = decoder.decode(packet.data).tensors
        errors.append(np.sqrt(np.mean((decoded["4.m"] - frame["4.m"]) ** 2)))
    assert max(errors[20:]) < 2 * max(errors[:20])


def test_a_better_quality_is_nearer_and_larger():
    frame = features(3, SMALL)
    sizes, errors = [], []
    for quality in (2, 6, 10):
        encoder, decoder = pair(quality=quality)
        packet = encoder.encode(frame, Stamp(0, 0)).data
        sizes.append(len(packet))
        errors.append(float(np.abs(decoder.decode(packet).tensors["4.m"] - frame["4.m"]).mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_difference_of_a_static_scene_takes_at_most_100_bytes():
    layout = (TensorSpec("4.m", (32, 60, 80)), TensorSpec("4.cv2", (32, 60, 80)))
    encoder, decoder = pair(layout)
    frame = features(4, layout)
    packets = encode_all(encoder, [frame] * 6)
    assert [packet.keyframe for packet in packets] == [True] + [False] * 5
    # The first difference may still correct what the keyframe left out.
    assert all(len(packet.data) <= 100 for packet in packets[2:])
    for packet in packets:
        decoder.decode(packet.data)


def test_frames_without_any_levels_are_read_by_the_slow_decoder_too():
    codec = make_codec(SMALL)
    frames = [features(4, SMALL)] * 4 + pans(4, 2)
    packets = encode_all(codec.encoder(SMALL), frames)
    assert len(packets[3].data) < 80
    assert not packets[3].keyframe
    assert_equals_the_slow_decoder(codec, SMALL, [packet.data for packet in packets])


def test_stamp_and_header_arrive():
    encoder, decoder = pair()
    header = decoder.decode(encoder.encode(features(1, SMALL), Stamp(9, 123, 480, 640)).data).header
    assert (header.sequence, header.captured_ns) == (9, 123)
    assert (header.frame_height, header.frame_width, header.layout) == (480, 640, SMALL)


def test_decoded_tensors_belong_to_the_caller():
    encoder, decoder = pair(ODD)
    packets = encode_all(encoder, video(1, 2, ODD))
    first = decoder.decode(packets[0].data).tensors
    kept = {name: tensor.copy() for name, tensor in first.items()}
    decoder.decode(packets[1].data)
    for name, tensor in first.items():
        assert np.array_equal(tensor, kept[name])
        tensor[:] = 0  # writable


def test_the_same_frames_make_the_same_packets():
    frames = pans(6, 5, ODD)
    first, second = ([p.data for p in encode_all(pair(ODD)[0], frames)] for _ in range(2))
    assert first == second


# --- keyframes ---


def test_the_first_packet_is_a_keyframe():
    assert pair()[0].encode(features(1, SMALL), Stamp(5, 0)).keyframe_reason == "first"


def test_a_packet_after_a_gap_is_a_keyframe():
    encoder, _ = pair()
    frames = pans(1, 3)
    encoder.encode(frames[0], Stamp(2**32 - 1, 0))
    assert not encoder.encode(frames[1], Stamp(0, 0)).keyframe
    assert encoder.encode(frames[2], Stamp(2, 0)).keyframe_reason == "first"


def test_a_requested_keyframe_comes_next_and_once():
    encoder, _ = pair()
    frames = pans(1, 4)
    packets = encode_all(encoder, frames[:2])
    encoder.force_keyframe()
    packets += encode_all(encoder, frames[2:], first=2)
    assert [packet.keyframe_reason for packet in packets] == ["first", None, "requested", None]


def test_keyframes_come_at_the_interval():
    encoder, decoder = pair(keyframe_interval=3)
    packets = encode_all(encoder, pans(1, 8))
    reasons = ["first", None, None, "periodic", None, None, "periodic", None]
    assert [packet.keyframe_reason for packet in packets] == reasons
    for packet in packets:
        assert decoder.decode(packet.data).header.keyframe == packet.keyframe


def test_another_scene_makes_a_keyframe():
    encoder, _ = pair()
    other = {"4.m": -3 * features(77, SMALL)["4.m"]}
    packets = encode_all(encoder, [features(1, SMALL), features(1, SMALL), other])
    assert [packet.keyframe_reason for packet in packets] == ["first", None, "scene"]


def test_a_codec_that_is_not_temporal_makes_and_takes_keyframes_only():
    codec = make_codec(SMALL, temporal=False)
    frames = pans(1, 3)
    packets = encode_all(codec.encoder(SMALL), frames)
    assert [(packet.keyframe, packet.keyframe_reason) for packet in packets] == [(True, None)] * 3
    difference = encode_all(make_codec(SMALL).encoder(SMALL), frames)[1]
    with pytest.raises(UnsupportedPacket):
        codec.decoder(SMALL).decode(difference.data)


SCENES = (TensorSpec("a", (16, 32, 40)),)


def still(seed, scale=1.0):
    x = np.random.default_rng(seed).normal(size=(16, 32, 40))
    for _ in range(3):
        x = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 2
    return (scale * x / x.std()).astype(np.float32)


def noise(seed):
    return np.random.default_rng(seed).normal(0, 1e-3, (16, 32, 40)).astype(np.float32)


@pytest.mark.parametrize(
    "codec", [make_codec(SCENES, 1, quality=9), Feature(quality=9)], ids=["calibrated", "not"]
)
def test_a_change_of_scene_is_not_taken_for_noise(codec):
    encoder, before, after = codec.encoder(SCENES), still(0), still(1, 4)
    packets = [encoder.encode({"a": (before if i < 8 else after) + noise(i)}, Stamp(i, 0)) for i in range(16)]
    assert packets[8].keyframe_reason == "scene"
    assert {packet.step for packet in packets} == {encoder.step}


def test_without_calibration_a_frame_beyond_the_ranges_of_the_keyframe_makes_another():
    codec = Feature(quality=8)
    encoder, decoder = codec.encoder(SCENES), codec.decoder(SCENES)
    for i, gain in enumerate(0.01 * 1.1 ** np.arange(60)):
        frame = np.float32(gain) * still(0)
        decoded = decoder.decode(encoder.encode({"a": frame}, Stamp(i, 0)).data).tensors["a"]
        assert np.abs(decoded - frame).max() < 0.3 * np.abs(frame).max()


# --- lost packets ---


def test_a_lost_packet_is_a_missing_reference_until_a_keyframe():
    encoder, decoder = pair()
    frames = pans(2, 6)
    packets = encode_all(encoder, frames[:4])
    decoder.decode(packets[0].data)
    for lost in (2, 3):
        with pytest.raises(MissingReference):
            decoder.decode(packets[lost].data)
    with pytest.raises(MissingReference):  # in order again, and too late
        decoder.decode(packets[1].data)
    encoder.force_keyframe()
    recovered = encode_all(encoder, frames[4:], first=4)
    assert_same(decoder, recovered)


def assert_same(decoder, packets):
    """A decoder that was in trouble decodes as one that starts at the keyframe."""
    assert packets[0].keyframe
    fresh = pair()[1]
    for packet in packets:
        assert np.array_equal(
            decoder.decode(packet.data).tensors["4.m"], fresh.decode(packet.data).tensors["4.m"]
        )


def test_a_difference_from_another_frame_is_a_state_mismatch():
    frames = pans(2, 4)
    encoder, decoder = pair()
    packets = encode_all(encoder, frames)
    decoder.decode(pair()[0].encode(frames[3], Stamp(0, 0)).data)  # numbered as if it were the right one
    with pytest.raises(StateMismatch):
        decoder.decode(packets[1].data)
    with pytest.raises(MissingReference):
        decoder.decode(packets[2].data)


def test_reset_forgets_the_reference():
    encoder, decoder = pair()
    packets = encode_all(encoder, pans(2, 2))
    decoder.decode(packets[0].data)
    decoder.reset()
    with pytest.raises(MissingReference):
        decoder.decode(packets[1].data)


def test_sequence_numbers_go_round():
    encoder, decoder = pair()
    packets = encode_all(encoder, pans(2, 3), first=2**32 - 2)
    assert [decoder.decode(packet.data).header.keyframe for packet in packets] == [True, False, False]


# --- odd input ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_refused_and_a_keyframe_follows(bad):
    encoder, decoder = pair(ODD)
    frames = video(1, 3, ODD)
    decoder.decode(encoder.encode(frames[0], Stamp(0, 0)).data)
    broken = {name: tensor.copy() for name, tensor in frames[1].items()}
    broken["4.cv2"][1, 2, 3] = bad
    with pytest.raises(NonFiniteTensor, match=r"4\.cv2"):
        encoder.encode(broken, Stamp(1, 0))
    packet = encoder.encode(frames[2], Stamp(1, 0))
    assert packet.keyframe_reason == "first"
    decoder.decode(packet.data)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e20, 3e38])
@pytest.mark.parametrize("layout", [SMALL, ODD, (TensorSpec("2x2", (40, 2, 2)),)], ids=["s", "odd", "2x2"])
def test_values_far_out_saturate_and_fit(layout, scale):
    codec = make_codec(layout, 1, quality=10)
    rng = np.random.default_rng(1)
    encoder = codec.encoder(layout)
    packets = []
    for i in range(4):
        signs = {s.name: np.float32(scale) * rng.choice((-1, 1), s.shape).astype(np.float32) for s in layout}
        packets.append(encoder.encode(signs, Stamp(i, 0)).data)
        assert len(packets[-1]) <= codec.packet_format(layout).max_packet_bytes
    assert_equals_the_slow_decoder(codec, layout, packets)


def test_a_frame_that_does_not_fit_gets_a_coarser_step(monkeypatch):
    """No real frame does so; with less room, an ordinary one does."""
    frame = features(3, SMALL)
    usual = pair(quality=10)[0].encode(frame, Stamp(0, 0))
    for module in (encoder_module, parameters_module):
        monkeypatch.setattr(module, "payload_bound", lambda layout: len(usual.data) // 2)
    encoder, decoder = pair(quality=10)
    frames = [frame, *video(3, 2)]
    frames = [frame, {"4.m": frame["4.m"] + np.float32(0.3)}, frame]
    packets = encode_all(encoder, frames)
    assert all(packet.step > usual.step for packet in packets if packet.keyframe)
    assert all(len(payload_of(packet.data)) <= len(usual.data) // 2 for packet in packets)
    for packet in packets:
        decoder.decode(packet.data)


def test_wrong_tensors_are_refused_and_a_keyframe_follows():
    encoder, _ = pair()
    good = features(1, SMALL)
    encoder.encode(good, Stamp(0, 0))
    for bad in (
        {},
        {"4.m": good["4.m"][:, :, 1:]},
        {"4.m": good["4.m"].astype(np.float64)},
        good | {"more": np.zeros(3, np.float32)},
    ):
        with pytest.raises(ShapeMismatch):
            encoder.encode(bad, Stamp(1, 0))
    assert encoder.encode(good, Stamp(1, 0)).keyframe_reason == "first"


def test_arrays_of_any_stride_and_read_only_ones_are_taken():
    good = features(1, SMALL)
    odd = {"4.m": np.asfortranarray(good["4.m"])}
    odd["4.m"].flags.writeable = False
    assert pair()[0].encode(odd, Stamp(0, 0)) == pair()[0].encode(good, Stamp(0, 0))


def test_constant_and_empty_frames_decode():
    codec = make_codec(ODD)
    frames = [{s.name: np.full(s.shape, x, np.float32) for s in ODD} for x in (0, 1, 1, 0)]
    packets = [packet.data for packet in encode_all(codec.encoder(ODD), frames)]
    assert_equals_the_slow_decoder(codec, ODD, packets)


@pytest.mark.parametrize("step", [FINEST, 64, 216, COARSEST])
def test_the_step_may_be_set_before_every_frame(step):
    encoder, _ = pair()
    frames = pans(5, 2)
    assert encoder.encode(frames[0], Stamp(0, 0)).step == encoder.step
    encoder.step = step
    packet = encoder.encode(frames[1], Stamp(1, 0))
    assert packet.step == step


def noisy(count, deviation):
    """A still scene before a camera that is not."""
    rng = np.random.default_rng(0)
    still = pans(5, 1)[0]["4.m"]
    return [{"4.m": (still + rng.normal(0, deviation, still.shape)).astype(np.float32)} for _ in range(count)]


def test_the_step_is_coarsened_for_noise_and_not_for_ever():
    encoder, decoder = pair(quality=10)
    packets = encode_all(encoder, noisy(30, 0.3))
    for packet in packets:
        decoder.decode(packet.data)
    assert packets[0].step == encoder.step
    assert encoder.step < packets[-1].step <= encoder.step + MOST_COARSENED
    quiet = encode_all(encoder, noisy(30, 0), first=30)
    assert quiet[-1].step == encoder.step


# --- parameters ---


@pytest.mark.parametrize(
    "wrong", [{"quality": 0}, {"quality": 11}, {"effort": 4}, {"keyframe_interval": 0}, {"effort": -1}]
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(BadCodecSpec, match=next(iter(wrong))):
        Feature(**wrong)


def test_a_profile_for_other_tensors_is_a_mismatch():
    codec = make_codec(SMALL)
    for layout in (ODD, (TensorSpec("4.m", (5, 8, 12)),)):
        for end in (codec.encoder, codec.decoder):
            with pytest.raises(ProfileMismatch):
                end(layout)


def test_a_profile_does_for_every_height_and_width():
    codec = make_codec(SMALL)
    for shape in ((4, 1, 1), (4, 5, 30)):
        layout = (TensorSpec("4.m", shape),)
        frame = features(1, layout)
        decoded = codec.decoder(layout).decode(codec.encoder(layout).encode(frame, Stamp(0, 0)).data)
        assert decoded.tensors["4.m"].shape == shape


# --- hostile packets: docs/bitstream.md, "Limits" ---


def chain(layout=SMALL, seed=0, **parameters):
    """A keyframe, a difference after it, and one with vectors."""
    codec = make_codec(layout, seed, quality=8, **parameters)
    packets = encode_all(codec.encoder(layout), pans(8, 3, layout))
    assert [packet.keyframe for packet in packets] == [True, False, False]
    return codec, [packet.data for packet in packets]


def decoder_at(codec, layout, packets, index):
    decoder = codec.decoder(layout)
    for packet in packets[:index]:
        decoder.decode(packet)
    return decoder


def assert_refused(  # noqa: PLR0917 - who refuses what, and how
    codec, layout, packets, index, packet, error=CorruptPacket, match=None
):
    """The packet is refused, and every difference after it until a keyframe."""
    decoder = decoder_at(codec, layout, packets, index)
    with pytest.raises(error, match=match):
        decoder.decode(packet)
    with pytest.raises(MissingReference):
        decoder.decode(packets[1])
    decoder.decode(packets[0])
    decoder.decode(packets[1])


@pytest.mark.parametrize(
    ("offset", "error"), [(0, CorruptPacket), (4, UnsupportedPacket), (29, UnsupportedPacket)]
)
def test_limits_unknown_magic_version_profile(offset, error):
    codec, packets = chain()
    changed = bytearray(packets[2])
    changed[offset] ^= 1
    assert_refused(codec, SMALL, packets, 2, reseal(bytes(changed)), error)


def test_limits_unknown_profile_of_a_file():
    with pytest.raises(UnsupportedPacket, match="profile"):
        Feature.from_parameters(b"\1" * 8)
    with pytest.raises(UnsupportedPacket, match="parameters"):
        Feature.from_parameters(b"\1" * 7)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 513, 4), "513"),
        ((1, 4, 513), "513"),
        ((4097,), "4097 channels"),
        ((64, 512, 513), "513"),
        ((65, 512, 512), "samples"),
        ((1025, 125, 125), "samples"),
    ],
)
def test_limits_height_width_channels_and_samples(shape, match):
    """Before anything is allocated: the profile does not even fit."""
    layout = (TensorSpec("a", shape),)
    codec = make_codec(SMALL)
    for make in (codec.encoder, codec.decoder, codec.packet_format):
        with pytest.raises(BadLayout, match=match):
            make(layout)


def test_limits_largest_layouts_are_taken():
    codec = make_codec(SMALL)
    for shape in ((64, 512, 512), (2048, 64, 64), (2048,)):
        codec.packet_format((TensorSpec("a", shape),))


def test_channels_of_a_group_are_limited():
    Feature().packet_format((TensorSpec("a", (2048,)), TensorSpec("b", (2048, 4, 4))))
    with pytest.raises(BadLayout, match="2049"):
        Feature().packet_format((TensorSpec("a", (2049,)),))


def test_limits_payload_larger_than_the_bound():
    codec, packets = chain()
    bound = payload_bound(SMALL)
    assert bound == 4 * 4 * 8 * 12 + 1024
    too_large = with_payload(packets[2], payload_of(packets[2]).ljust(bound + 1, b"\0"))
    assert_refused(codec, SMALL, packets, 2, too_large, CorruptPacket, "agreed")


def test_limits_payload_bound_counts_whole_blocks():
    assert (
        payload_bound((TensorSpec("a", (3, 5, 9)), TensorSpec("b", (2,)))) == 4 * (3 * 8 * 12 + 2 * 16) + 1024
    )


@pytest.mark.parametrize("size", [0, 1, 4])
def test_limits_payload_without_a_head(size):
    codec, packets = chain()
    short = with_payload(packets[2], payload_of(packets[2])[:size])
    assert_refused(codec, SMALL, packets, 2, short, CorruptPacket)


def test_limits_sections_of_further_tensors_must_be_empty():
    codec, packets = chain(ODD)
    header = PacketHeader.parse(packets[0])
    moved = (header.section_bytes[0] - 1, 1, 0, 0)
    changed = PacketHeader(
        header.codec_id, header.parameters, True, header.sequence, 0, 0, 0, ODD, moved
    ).pack()
    packet = reseal(changed + packets[0][header.header_bytes :])
    assert_refused(codec, ODD, packets, 2, packet, CorruptPacket, "not 0 to 0")


def test_limits_wrong_checksum():
    codec, packets = chain()
    for packet in packets:
        changed = bytearray(packet)
        changed[-9] ^= 16
        assert_refused(codec, SMALL, packets, 2, bytes(changed), CorruptPacket, "checksum")


def test_limits_difference_without_state_or_out_of_order():
    codec, packets = chain()
    with pytest.raises(MissingReference):
        codec.decoder(SMALL).decode(packets[1])
    assert_refused(codec, SMALL, packets, 1, packets[2], MissingReference)
    assert_refused(codec, SMALL, packets, 2, packets[1], MissingReference)


@pytest.mark.parametrize("ranges", ["7c00", "fc00", "7e00", "reversed", "short"])
def test_limits_ranges_without_a_profile(ranges):
    """A keyframe's ranges of channels: no infinity, no NaN, least first, and all of them."""
    codec = Feature()
    packets = [packet.data for packet in encode_all(codec.encoder(SMALL), pans(8, 2))]
    payload = bytearray(payload_of(packets[0]))
    if ranges == "reversed":
        payload[1:9], payload[9:17] = payload[9:17], payload[1:9]
    elif ranges == "short":
        del payload[16:]
    else:
        payload[3:5] = bytes.fromhex(ranges)
    changed = with_payload(packets[0], bytes(payload))
    assert_refused(codec, SMALL, packets, 0, changed, CorruptPacket, "range")


@pytest.mark.parametrize("step", [0, FINEST - 1, COARSEST + 1, 255])
def test_limits_step_out_of_range(step):
    codec, packets = chain()
    for packet in packets:
        payload = payload_of(packet)
        index = PacketHeader.parse(packet).sequence
        changed = with_payload(packet, bytes((step,)) + payload[1:])
        assert_refused(codec, SMALL, packets, index, changed, CorruptPacket, "step")


def forged(choose, kind=KEY, before=(), **options):
    """A forged packet, the packets before it, and the codec."""
    codec = make_codec(SMALL)
    forger = Forger(codec, SMALL)
    packets = [forger.packet(choice, kind=KEY if i == 0 else DIFFERENCE) for i, choice in enumerate(before)]
    packet = forger.packet(choose, kind=kind, **options)
    assert forger.refused
    decoder = codec.decoder(SMALL)
    for earlier in packets:
        decoder.decode(earlier)
    return decoder, packet


def only(ranges, symbol=0, bits=0):
    """1 in these ranges of binary contexts, one symbol in all alphabets, one of 0 and 1 for bits."""

    def choose(place, count):
        if place is None:
            return bits * (count - 1)
        return symbol if place >= ALPHABET else int(any(place in each for each in ranges))

    return choose


NOTHING = only([range(reference.PLANE, reference.BLOCK)])
SOME_LEVELS = [range(reference.BLOCK, reference.SIGN)]


def test_limits_escape_code_longer_than_any_level_needs():
    decoder, packet = forged(only(SOME_LEVELS, symbol=15, bits=1))
    with pytest.raises(CorruptPacket, match="level"):
        decoder.decode(packet)


def test_limits_level_above_the_largest():
    """Fourteen more bits, all of them 1: 15 + 32766."""
    prefix = iter([1] * 14 + [0])
    usual = only(SOME_LEVELS, symbol=15, bits=1)

    def choose(place, count):
        return next(prefix) if place is None and count == 2 else usual(place, count)

    decoder, packet = forged(choose)
    with pytest.raises(CorruptPacket, match="level"):
        decoder.decode(packet)


def test_limits_the_largest_level_is_taken():
    """32767 as the only level of a block, the longest code that there is."""
    usual = only(SOME_LEVELS, symbol=15)
    layout = (TensorSpec("a", (1, 4, 4)),)
    codec = make_codec(layout)
    escape = iter([*[1] * 14, 0, 32767 - 1 - 15 + 1 - 2**14, 0])

    def choose(place, count):
        if place is None:
            return next(escape)
        return 0 if place in range(ALPHABET, ALPHABET + reference.FIRST) else usual(place, count)

    forger = Forger(codec, layout)
    packet = forger.packet(choose, step=FINEST)
    assert not forger.refused
    decoder = codec.decoder(layout)
    decoder.decode(packet)
    assert decoder.groups[0].levels.max() == 32767


@pytest.mark.parametrize("down", [True, False])
def test_limits_change_of_step_out_of_range(down):
    sign = reference.STEP + 3
    ones = [range(reference.STEP, sign), range(sign, sign + down), range(sign + 1, reference.SKIP)]
    decoder, packet = forged(only(ones))
    with pytest.raises(CorruptPacket, match="step"):
        decoder.decode(packet)


def test_limits_vector_out_of_range():
    decoder, packet = forged(only([range(reference.MOTION, reference.CONTEXTS)]), DIFFERENCE, [NOTHING])
    with pytest.raises(CorruptPacket, match="vector"):
        decoder.decode(packet)


def test_limits_leftover_bytes():
    codec, packets = chain()
    for index, packet in enumerate(packets):
        payload = payload_of(packet)
        assert_refused(codec, SMALL, packets, index, with_payload(packet, payload + bytes(9)), match="end")
        assert_refused(codec, SMALL, packets, index, with_payload(packet, payload + b"\1" * 9), match="end")


def test_limits_reading_past_the_end():
    codec, packets = chain()
    for index, packet in enumerate(packets):
        payload = payload_of(packet)
        at = 1 if index == 0 else 5
        short = with_payload(packet, payload[: at + (len(payload) - at) // 4])
        assert_refused(codec, SMALL, packets, index, short, BitstreamError)


@pytest.mark.parametrize("index", range(3))
def test_every_truncation_is_refused(index):
    codec, packets = chain()
    decoder = decoder_at(codec, SMALL, packets, index)
    for size in range(len(packets[index])):
        with pytest.raises(TruncatedPacket):
            decoder.decode(packets[index][:size])


@pytest.mark.parametrize("index", range(3))
def test_every_truncation_of_a_payload_is_refused_or_decoded(index):
    """The range coder makes something of all bytes, so that the last ones may be missing unnoticed."""
    codec, packets = CHAIN
    payload = payload_of(packets[index])
    decoder, refused = codec.decoder(ODD), 0
    for size in range(1, len(payload)):
        for packet in packets[:index]:
            decoder.decode(packet)
        try:
            decoder.decode(with_payload(packets[index], payload[:size]))
        except BitstreamError:
            refused += 1
    assert refused >= len(payload) - 16


@pytest.mark.parametrize("index", range(3))
def test_truncated_payloads_are_refused_or_decoded_alike(index):
    codec, packets = CHAIN
    payload = payload_of(packets[index])
    for size in (*range(1, len(payload) - 8, 41), *range(len(payload) - 8, len(payload))):
        assert_alike(codec, ODD, packets, index, with_payload(packets[index], payload[:size]))


def assert_alike(codec, layout, packets, index, packet):
    """Our decoder refuses what the slow one refuses, and decodes the rest to the same planes."""
    decoder, slow = decoder_at(codec, layout, packets, index), slow_decoder(codec, layout)
    slow.decode_all(packets[:index])
    try:
        expected = slow.decode(packet)
    except Refused:
        with pytest.raises(BitstreamError):
            decoder.decode(packet)
        return False
    decoded = decoder.decode(packet)
    for group, planes in zip(decoder.groups, expected, strict=True):
        assert np.array_equal(group.planes, planes)
    assert all(np.isfinite(tensor).all() for tensor in decoded.tensors.values())
    return True


@given(st.integers(0, 2), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=100)
def test_single_corrupted_bytes_are_refused_or_decoded_alike(index, at, flip):
    codec, packets = CHAIN
    payload = bytearray(payload_of(packets[index]))
    payload[at % len(payload)] ^= flip
    assert_alike(codec, ODD, packets, index, with_payload(packets[index], bytes(payload)))


CHAIN = chain(ODD)


@given(st.integers(0, 2), st.binary(max_size=200), st.integers(FINEST, COARSEST))
@settings(max_examples=60)
def test_payloads_of_noise_are_refused_or_decoded_alike(index, noise, step):
    codec, packets = CHAIN
    head = bytes((step,)) + (payload_of(packets[index])[1:5] if index else b"")
    assert_alike(codec, ODD, packets, index, with_payload(packets[index], head + noise))


@pytest.mark.parametrize("seed", range(40))
def test_forged_packets_are_refused_or_decoded_alike(seed):
    """Streams of random decisions: codes, vectors and steps that no encoder of ours combines."""
    rng = np.random.default_rng(seed)
    layout = ODD if seed % 2 else SMALL
    codec = make_codec(layout, seed)
    forger, packets = Forger(codec, layout), []
    for index in range(5):
        choose = random_choice(rng, rng.beta(0.4, 0.4), rng.beta(0.4, 0.4))
        packet = forger.packet(choose, DIFFERENCE if index else KEY, int(rng.integers(FINEST, COARSEST + 1)))
        taken = assert_alike(codec, layout, packets, index, packet)
        assert taken != forger.refused
        if not taken:
            break
        packets.append(packet)


def test_some_forged_packets_decode():
    """What the test above would otherwise not see."""
    rng = np.random.default_rng(0)
    refused = []
    for seed in range(20):
        forger = Forger(make_codec(SMALL, seed), SMALL)
        forger.packet(random_choice(rng, rng.beta(0.4, 0.4), rng.beta(0.4, 0.4)))
        refused.append(forger.refused)
    assert 2 < sum(refused) < 18


@pytest.mark.slow
def test_corrupted_packets_stay_inside_their_arrays(cache):
    """Again with every index of the kernels checked, which a flag of the compiler does in a process of its own."""
    # Numba's cache does not know this flag, so the kernels that it holds are kept apart.
    folder = cache.mkdir("boundscheck")
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder)}
    code = f"from {__name__} import hammer; hammer()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=600)


def hammer(rounds=300):
    """Corrupt packets in every way; anything but BitstreamError ends it."""
    codec, packets = CHAIN
    rng = np.random.default_rng(0)
    for number in range(rounds):
        index = number % 3
        payload = bytearray(payload_of(packets[index]))
        head = 5 if index else 1
        for _ in range(rng.integers(1, 4)):
            payload[rng.integers(head, len(payload))] = rng.integers(256)
        decoder = decoder_at(codec, ODD, packets, index)
        try:
            decoder.decode(with_payload(packets[index], bytes(payload)))
        except BitstreamError:
            continue


def test_pairs_of_packets_never_decode_the_wrong_way_round():
    codec, packets = chain()
    for later, earlier in pairwise(reversed(packets)):
        decoder = codec.decoder(SMALL)
        with pytest.raises(MissingReference):
            decoder.decode(later)
        if PacketHeader.parse(earlier).keyframe:
            decoder.decode(earlier)
            decoder.decode(later)


def test_profiles_of_one_layout_do_not_read_one_another():
    packet = make_codec(SMALL, 1).encoder(SMALL).encode(features(1, SMALL), Stamp(0, 0)).data
    assert make_profile(SMALL, 1).hash != make_profile(SMALL, 2).hash
    with pytest.raises(UnsupportedPacket):
        make_codec(SMALL, 2).decoder(SMALL).decode(packet)
