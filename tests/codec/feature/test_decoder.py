"""The feature codec's decoder: lost packets, and what docs/bitstream.md tells it to refuse ("Limits")."""

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
    BitstreamError,
    CorruptPacket,
    MissingReference,
    ReferenceMismatch,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.feature.codec import Feature
from codec.feature.parameters import payload_bound
from codec.feature.transform import COARSEST, FINEST
from codec.layout import TensorSpec
from codec.packet import PacketHeader, Stamp, is_keyframe
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_codec
from tests.codec.feature.streams import ODD, SMALL, chain, decoder_at, encode_all, pair, pans, slow_decoder
from tests.codec.forge import ALPHABET, Forger, payload_of, random_choice, reseal, with_payload
from tests.codec.reference_feature import DIFFERENCE, KEY, Refused


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
    with pytest.raises(ReferenceMismatch):
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
    changed = bytearray(packets[0])
    changed[offset] ^= 1
    assert_refused(codec, SMALL, packets, 2, reseal(bytes(changed), codec.packet_format(SMALL)), error)


def test_limits_payload_larger_than_the_bound():
    codec, packets = chain()
    bound = payload_bound(SMALL)
    assert bound == 4 * 4 * 8 * 12 + 1024
    too_large = with_payload(
        codec.packet_format(SMALL), packets[2], payload_of(packets[2]).ljust(bound + 1, b"\0")
    )
    assert_refused(codec, SMALL, packets, 2, too_large, CorruptPacket, f"not 1 to {bound}")


@pytest.mark.parametrize("size", [0, 1, 4])
def test_limits_payload_without_a_head(size):
    codec, packets = chain()
    short = with_payload(codec.packet_format(SMALL), packets[2], payload_of(packets[2])[:size])
    assert_refused(codec, SMALL, packets, 2, short, CorruptPacket)


def test_limits_sections_of_further_tensors_must_be_empty():
    codec, packets = chain(ODD)
    header = PacketHeader.parse(packets[0])
    moved = (header.section_bytes[0] - 1, 1, 0, 0)
    changed = PacketHeader(
        header.codec_id, header.parameters, True, header.sequence, 0, 0, 0, ODD, moved
    ).pack()
    packet = reseal(changed + packets[0][header.header_bytes :], codec.packet_format(ODD))
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
    changed = with_payload(codec.packet_format(SMALL), packets[0], bytes(payload))
    assert_refused(codec, SMALL, packets, 0, changed, CorruptPacket, "range")


@pytest.mark.parametrize("step", [0, FINEST - 1, COARSEST + 1, 255])
def test_limits_step_out_of_range(step):
    codec, packets = chain()
    for packet in packets:
        payload = payload_of(packet)
        index = packets.index(packet)
        changed = with_payload(codec.packet_format(SMALL), packet, bytes((step,)) + payload[1:])
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
    decoder, packet = forged(only([range(reference.MOTION, reference.SHARP)]), DIFFERENCE, [NOTHING])
    with pytest.raises(CorruptPacket, match="vector"):
        decoder.decode(packet)


def test_limits_leftover_bytes():
    codec, packets = chain()
    for index, packet in enumerate(packets):
        payload = payload_of(packet)
        assert_refused(
            codec,
            SMALL,
            packets,
            index,
            with_payload(codec.packet_format(SMALL), packet, payload + bytes(9)),
            match="end",
        )
        assert_refused(
            codec,
            SMALL,
            packets,
            index,
            with_payload(codec.packet_format(SMALL), packet, payload + b"\1" * 9),
            match="end",
        )


def test_limits_reading_past_the_end():
    codec, packets = chain()
    for index, packet in enumerate(packets):
        payload = payload_of(packet)
        at = 1 if index == 0 else 5
        short = with_payload(codec.packet_format(SMALL), packet, payload[: at + (len(payload) - at) // 4])
        assert_refused(codec, SMALL, packets, index, short, BitstreamError)


@pytest.mark.parametrize("index", range(3))
def test_every_truncation_is_refused(index):
    codec, packets = chain()
    decoder = decoder_at(codec, SMALL, packets, index)
    for size in range(len(packets[index])):
        with pytest.raises((TruncatedPacket, CorruptPacket)):
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
            decoder.decode(with_payload(codec.packet_format(ODD), packets[index], payload[:size]))
        except BitstreamError:
            refused += 1
    assert refused >= len(payload) - 16


@pytest.mark.parametrize("index", range(3))
def test_truncated_payloads_are_refused_or_decoded_alike(index):
    codec, packets = CHAIN
    payload = payload_of(packets[index])
    for size in (*range(1, len(payload) - 8, 41), *range(len(payload) - 8, len(payload))):
        assert_alike(
            codec, ODD, packets, index, with_payload(codec.packet_format(ODD), packets[index], payload[:size])
        )


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
    assert_alike(
        codec, ODD, packets, index, with_payload(codec.packet_format(ODD), packets[index], bytes(payload))
    )


CHAIN = chain(ODD)


@given(st.integers(0, 2), st.binary(max_size=200), st.integers(FINEST, COARSEST))
@settings(max_examples=60)
def test_payloads_of_noise_are_refused_or_decoded_alike(index, noise, step):
    codec, packets = CHAIN
    head = bytes((step,)) + (payload_of(packets[index])[1:5] if index else b"")
    assert_alike(
        codec, ODD, packets, index, with_payload(codec.packet_format(ODD), packets[index], head + noise)
    )


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
@pytest.mark.timeout(600)  # all kernels are compiled anew
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
            decoder.decode(with_payload(codec.packet_format(ODD), packets[index], bytes(payload)))
        except BitstreamError:
            continue


def test_pairs_of_packets_never_decode_the_wrong_way_round():
    codec, packets = chain()
    for later, earlier in pairwise(reversed(packets)):
        decoder = codec.decoder(SMALL)
        with pytest.raises(MissingReference):
            decoder.decode(later)
        if is_keyframe(earlier):
            decoder.decode(earlier)
            decoder.decode(later)
