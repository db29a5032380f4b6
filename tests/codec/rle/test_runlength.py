"""Zero-run coding: the paper's example, the reference's bytes, and payloads that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import CorruptPacket
from codec.rle import kernels, runlength
from codec.rle.codewords import coded_bounds, scratch_bytes
from tests.codec import reference_rle as reference


def encode(levels, bits):
    out = np.full(scratch_bytes(len(levels), bits), 0xAA, np.uint8)
    return out[
        : kernels.encode_levels(np.array(levels, np.uint8), bits, out, kernels.workspace()[1])
    ].tobytes()


def decode(payload, bits, size):
    return runlength.decode_levels(memoryview(payload), bits, size).tolist()


def packed(text):
    return reference.pack_bits(text.replace(" ", ""))


@st.composite
def level_lists(draw):
    """Bits, and levels in runs long enough to be split and to cross groups of eight codewords."""
    bits = draw(st.integers(2, 8))
    literals = st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=20)
    zeros = st.integers(1, 3 * 2**bits).map(lambda count: [0] * count)
    pieces = draw(st.lists(literals | zeros, min_size=1, max_size=12))
    return bits, [level for piece in pieces for level in piece]


def test_twenty_zeros_are_runs_of_8_8_and_4():
    assert encode([0] * 20, 3) == packed("1111 1111 1011")


def test_levels_and_runs_stand_side_by_side():
    assert encode([5, 0, 0, 7, 0, 1], 3) == packed("0101 1001 0111 1000 0001")


@given(level_lists())
def test_bytes_are_the_reference_ones(bits_and_levels):
    bits, levels = bits_and_levels
    payload = encode(levels, bits)
    assert payload == packed("".join(reference.codewords(levels, bits)))
    assert decode(payload, bits, len(levels)) == levels


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("share_of_zeros", [0, 0.5, 0.97, 1])
def test_chunks_leave_no_seam(bits, share_of_zeros):
    """Sizes around the kernels' chunks, with runs across their borders."""
    rng = np.random.default_rng(bits)
    for size in (kernels.CHUNK - 1, kernels.CHUNK, kernels.CHUNK + 1, 3 * kernels.CHUNK + 5):
        levels = rng.integers(1, 2**bits, size) * (rng.random(size) >= share_of_zeros)
        payload = encode(levels, bits)
        assert payload == packed("".join(reference.codewords(levels.tolist(), bits)))
        assert decode(payload, bits, size) == levels.tolist()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 255, 256, 257, 1000])
def test_bounds_are_reached_and_not_passed(bits, size):
    least, most = coded_bounds(size, bits)
    assert len(encode([0] * size, bits)) == least
    assert len(encode([1] * size, bits)) == most


@pytest.mark.parametrize("bits", range(2, 9))
def test_coefficients_are_read_in_one_pass(bits):
    levels = np.random.default_rng(bits).integers(0, 2**bits, 999) // 2
    table = np.linspace(-3, 9, 2**bits, dtype=np.float32)
    payload = memoryview(encode(levels, bits))
    assert np.array_equal(runlength.decode_coefficients(payload, bits, table, 999), table[levels])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0101", 2),  # ends early
        ("0101 0000 0101 0101", 4),  # a level 0 outside a run
        ("1111 1111 1011", 21),  # ends early, after runs
        ("1111 1111 1011", 19),  # the last run goes beyond
        ("0101 0110 0111", 1),  # a byte too many
        ("0101 0001", 1),  # padding that is not zero
        ("0101 0000 0000 0000", 1),  # padding of more than seven bits
    ],
)
def test_refuses_what_is_not_the_tensor(text, size):
    with pytest.raises(CorruptPacket):
        decode(packed(text), 3, size)


def test_takes_runs_that_an_encoder_would_have_joined():
    assert decode(packed("1000 1010 0100"), 3, 5) == [0, 0, 0, 0, 4]


@given(st.integers(2, 8), st.binary(min_size=1, max_size=60), st.integers(1, 3000))
def test_any_bytes_give_levels_or_are_refused(bits, payload, size):
    try:
        levels = decode(payload, bits, size)
    except CorruptPacket:
        return
    assert len(levels) == size
    assert max(levels) < 2**bits
