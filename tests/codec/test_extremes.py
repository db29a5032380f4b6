"""Extremes of tensors: what is not finite is refused."""

from __future__ import annotations

import numpy as np
import pytest

from codec.errors import NonFiniteTensor
from codec.extremes import range_of


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 7, 40])
def test_refuses_what_is_not_finite_anywhere(bad, index):
    x = np.linspace(-1, 1, 41, dtype=np.float32)
    x[index] = bad
    with pytest.raises(NonFiniteTensor, match=r"'4\.m'") as refused:
        range_of(x, "4.m")
    assert refused.value.name == "4.m"


@pytest.mark.parametrize("pattern", [0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00000, 0xFFC00000])
def test_refuses_every_kind_of_nan(pattern):
    x = np.array([0x3F800000, pattern], np.uint32).view(np.float32)
    with pytest.raises(NonFiniteTensor):
        range_of(x, "x")
