"""Integers as short as they are small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.varint import pack_varint, read_varint
from tests.codec.reference_rle import varint


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_every_number_is_read_where_it_stands(value, before, after):
    packed = pack_varint(value)
    assert packed == varint(value)
    assert len(packed) == max(1, -(-value.bit_length() // 7))
    assert read_varint(before + packed + after, len(before)) == (value, len(before + packed))


@given(st.binary(max_size=12))
def test_a_number_has_one_form(data):
    try:
        value, end = read_varint(data, 0)
    except ValueError:
        return
    assert pack_varint(value) == data[:end]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside"),
        (b"\xff\x80", "ends inside"),
        (b"\x80\x01", "begins with zeros"),
        (b"\x82" + b"\x80" * 8 + b"\x00", "64 bits"),
        (b"\xff" * 100, "64 bits"),
    ],
)
def test_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        read_varint(data, 0)
