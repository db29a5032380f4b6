"""Ranges of tensors: what no tensor has is refused."""

from __future__ import annotations

import pytest

from codec.errors import CorruptPacket
from codec.value_range import ValueRange


@pytest.mark.parametrize(
    "data",
    ["7fc0000000000000", "000000007fc00000", "000000007f800000", "ff80000000000000", "3f80000000000000"],
)
def test_refuses_a_range_no_tensor_has(data):
    with pytest.raises(CorruptPacket):
        ValueRange.parse(memoryview(bytes.fromhex(data)))
