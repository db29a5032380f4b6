"""Extremes of tensors: what is not finite is refused."""

from __future__ import annotations

import numpy as np
import pytest

from codec.errors import NonFiniteTensor
from codec.extremes import copy_planes, range_of


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


@pytest.mark.parametrize(
    ("value", "greatest"), [(-3.0, 3.0), (0.5, 2.5), (np.inf, np.inf), (-np.inf, np.inf)]
)
def test_copied_planes_tell_their_greatest_magnitude(value, greatest):
    planes = np.linspace(-2.5, 2.5, 24, dtype=np.float32).reshape(2, 3, 4)
    planes[1, 1, 2] = value
    target = np.full((2, 4, 8), 77, np.float32)
    assert copy_planes(planes, target) == np.float32(greatest).view(np.int32)
    assert np.array_equal(target[:, :3, :4], planes)
    assert (target[:, 3:] == 77).all()
    assert (target[:, :, 4:] == 77).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_no_number_is_a_greater_magnitude_than_nan(sign):
    planes = np.full((1, 2, 2), np.inf, np.float32)
    planes[0, 0, 1] = sign * np.float32(np.nan)
    assert copy_planes(planes, planes.copy()) > np.float32(np.inf).view(np.int32)
