"""The feature codec's encoder: what it makes, the slow decoder reads; when it makes keyframes; odd input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codec.errors import (
    BadStepMap,
    NonFiniteTensor,
    ShapeMismatch,
    UnsupportedPacket,
)
from codec.feature import encoder as encoder_module
from codec.feature import parameters as parameters_module
from codec.feature.codec import Feature
from codec.feature.profile import Profile
from codec.feature.step_network import StepNetwork
from codec.feature.transform import COARSEST, FINEST
from codec.layout import TensorSpec
from codec.packet import Stamp
from tests.codec.calibrated import make_codec, make_profile
from tests.codec.feature.streams import ODD, SMALL, assert_equals_the_slow_decoder, encode_all, pair, pans
from tests.codec.forge import payload_of
from tests.codec.samples import features, video


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


def test_a_keyframe_is_coded_by_the_step_that_it_has_and_not_by_the_one_before():
    codec, rng = make_codec(ODD, 3), np.random.default_rng(0)
    frame = {spec.name: rng.normal(0, 30, spec.shape).astype(np.float32) for spec in ODD}
    encoder = codec.encoder(ODD)
    for i, step in enumerate(range(90, 230, 20)):
        new = codec.encoder(ODD)
        encoder.step = new.step = step
        encoder.force_keyframe()
        assert encoder.encode(frame, Stamp(i, 0)).data == new.encode(frame, Stamp(i, 0)).data


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_refused_and_a_keyframe_follows(bad, calibrated):
    codec = make_codec(ODD) if calibrated else Feature()
    encoder, decoder = codec.encoder(ODD), codec.decoder(ODD)
    frames = video(1, 3, ODD)
    decoder.decode(encoder.encode(frames[0], Stamp(0, 0)).data)
    broken = {name: tensor.copy() for name, tensor in frames[1].items()}
    broken["4.cv2"][1, 2, 3] = bad
    with pytest.raises(NonFiniteTensor, match=r"4\.cv2"):
        encoder.encode(broken, Stamp(1, 0))
    with pytest.raises(NonFiniteTensor, match=r"4\.cv2"):
        encoder.encode(broken, Stamp(1, 0))  # as a keyframe
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
    rng, scene = np.random.default_rng(0), still(3)
    return [scene + rng.normal(0, deviation, scene.shape).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("quality", [6, 8])
def test_noise_costs_less_and_less_and_the_reference_gets_nearer_to_the_scene(quality):
    codec = make_codec(SCENES, 1, quality=quality)
    encoder, decoder = codec.encoder(SCENES), codec.decoder(SCENES)
    sizes, errors = [], []
    for i, frame in enumerate(noisy(40, 0.1)):
        packet = encoder.encode({"a": frame}, Stamp(i, 0))
        decoded = decoder.decode(packet.data).tensors["a"]
        assert packet.step == encoder.step
        sizes.append(len(packet.data))
        errors.append(float(np.abs(decoded - still(3)).mean()))
    assert max(sizes[30:]) < 0.2 * sizes[1]
    assert max(errors[30:]) < errors[0]


def even_codec(layout, **parameters):
    """A codec whose own prediction is that all blocks matter as much."""
    profile = make_profile(layout, 3)
    groups = [replace(group, step_network=StepNetwork.flat(group.channels)) for group in profile.groups]
    return Feature(profile=Profile(tuple(groups), profile.metadata), quality=6, **parameters)


def step_map(encoder):
    """The map for which every other block matters, from the first on."""
    return b"\xf0" * encoder.step_map_bytes


def test_a_step_map_steers_steps_and_the_slow_decoder_agrees():
    codec = even_codec(ODD)
    frames = pans(3, 6, ODD)
    guided, alone = codec.encoder(ODD), codec.encoder(ODD)
    packets, others = [], []
    for number, frame in enumerate(frames):
        packets.append(guided.encode(frame, Stamp(number, number)).data)
        others.append(alone.encode(frame, Stamp(number, number)).data)
        guided.guide(number, step_map(guided))
    assert packets[0] == others[0]
    assert packets[1:] != others[1:]
    for group, other in zip(guided.groups[:2], alone.groups, strict=False):
        steps = group.before.astype(int)
        assert not other.before.any()
        assert steps[::2].sum() < 0  # finer
        assert steps[1::2].sum() > 0
    assert_equals_the_slow_decoder(codec, ODD, packets)


@pytest.mark.parametrize("reason", ["requested", "periodic"])
def test_a_step_map_reaches_over_a_keyframe_of_the_same_scene_and_not_over_another(reason):
    def packets(forget):
        encoder = even_codec(SMALL, keyframe_interval=1 if reason == "periodic" else 250).encoder(SMALL)
        frames = pans(3, 3)
        encoder.encode(frames[0], Stamp(0, 0))
        encoder.guide(0, step_map(encoder))
        if reason == "requested":
            encoder.force_keyframe()
        first = 1 if not forget else 7  # a number that does not follow begins anew
        packet = encoder.encode(frames[1], Stamp(first, 0))
        assert packet.keyframe_reason == ("first" if forget else reason)
        return [packet.data, encoder.encode(frames[2], Stamp(first + 1, 0)).data]

    alone = even_codec(SMALL, keyframe_interval=1 if reason == "periodic" else 250).encoder(SMALL)
    expected = [alone.encode(frame, Stamp(7 + i, 0)).data for i, frame in enumerate(pans(3, 3)[1:])]
    assert packets(forget=True) == expected
    goes_on = packets(forget=False)
    assert payload_of(goes_on[0]) != payload_of(expected[0])


def test_a_step_map_has_nothing_to_say_of_the_scene_after_a_cut():
    guided, alone = (even_codec(SMALL).encoder(SMALL) for _ in range(2))
    for each in (guided, alone):
        each.encode(features(1, SMALL), Stamp(0, 0))
    guided.guide(0, step_map(guided))
    other = {"4.m": -3 * features(77, SMALL)["4.m"]}
    packet = guided.encode(other, Stamp(1, 0))
    assert packet.keyframe_reason == "scene"
    assert packet == alone.encode(other, Stamp(1, 0))


def test_a_step_map_is_of_no_use_before_the_first_frame():
    guided, alone = (even_codec(SMALL).encoder(SMALL) for _ in range(2))
    guided.guide(0, step_map(guided))
    assert encode_all(guided, pans(3, 2)) == encode_all(alone, pans(3, 2))


@pytest.mark.parametrize("keyframe", [False, True])
def test_a_step_map_may_be_of_a_frame_before_the_last(keyframe):
    encoder, alone = (even_codec(SMALL).encoder(SMALL) for _ in range(2))
    first, second, third = pans(3, 3)
    for each in (encoder, alone):
        each.encode(first, Stamp(2**32 - 1, 0))
        if keyframe:
            each.force_keyframe()
        assert each.encode(second, Stamp(0, 0)).keyframe == keyframe
    encoder.guide(2**32 - 1, step_map(encoder))
    assert encoder.encode(third, Stamp(1, 0)).data != alone.encode(third, Stamp(1, 0)).data


def test_a_step_map_moves_with_a_difference_and_not_with_a_keyframe(monkeypatch):
    encoder, moves = even_codec(SMALL).encoder(SMALL), []
    (analysis,), (group,) = encoder._analyses, encoder.groups
    monkeypatch.setattr(analysis.guide, "advance", lambda vectors: moves.append(vectors.copy()))
    first, second, third = pans(3, 3)
    encoder.encode(first, Stamp(0, 0))
    encoder.encode(second, Stamp(1, 0))
    assert moves[0].any()
    assert np.array_equal(moves[0], group.vectors)
    encoder.force_keyframe()
    encoder.encode(third, Stamp(2, 0))
    assert len(moves) == 2
    assert not moves[1].any()


@pytest.mark.parametrize("number", [1, 2**32 - 1, 2**31])
def test_a_step_map_of_a_frame_that_was_not_coded_is_left_out(number):
    encoder, alone = (even_codec(SMALL).encoder(SMALL) for _ in range(2))
    frames = pans(3, 2)
    for each in (encoder, alone):
        each.encode(frames[0], Stamp(0, 0))
    encoder.guide(number, step_map(encoder))
    assert encoder.encode(frames[1], Stamp(1, 1)).data == alone.encode(frames[1], Stamp(1, 1)).data


def test_a_step_map_of_another_size_is_refused():
    encoder = make_codec(SMALL, 3).encoder(SMALL)
    assert encoder.step_map_bytes == 3  # of 2x3 blocks
    with pytest.raises(BadStepMap):
        encoder.guide(0, bytes(4))


def test_takes_no_step_map_where_none_is_of_use():
    """All blocks are alike without a profile, and without differences no frame has to do with the one before."""
    assert Feature().encoder(SMALL).step_map_bytes == 0
    assert replace(make_codec(SMALL, 3), temporal=False).encoder(SMALL).step_map_bytes == 0
