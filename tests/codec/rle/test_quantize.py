"""Quantization: ranges, levels and values against the reference, and the bound on the error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codec.extremes import range_of
from codec.rle import kernels
from codec.rle.quantize import level_values, levels_per_unit
from tests.codec import reference_rle as reference

GREATEST = float(np.finfo(np.float32).max)
DENORMAL = float(np.finfo(np.float32).smallest_subnormal)

BITS = st.integers(2, 8)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TENSORS = arrays(np.float32, st.integers(1, 70), elements=FINITE)


def quantize(x, bits):
    value_range = range_of(x, "x")
    levels = np.empty(x.size, np.uint8)
    kernels.quantize(x, value_range.minimum, levels_per_unit(value_range, bits), levels)
    return value_range, levels


@given(TENSORS, BITS)
def test_range_levels_and_values_are_the_reference_ones(x, bits):
    value_range, levels = quantize(x, bits)
    expected = reference.quantize([float(v) for v in x], bits)
    assert reference.order(value_range.minimum) == reference.order(expected.minimum)
    assert reference.order(value_range.maximum) == reference.order(expected.maximum)
    assert levels.tolist() == expected.levels
    assert level_values(value_range, bits)[levels].tolist() == reference.dequantize(expected, bits)


@pytest.mark.parametrize("bits", range(2, 9))
def test_halves_round_like_the_reference(bits):
    """At and next to the thresholds between levels, where a fused multiply-add would show."""
    rng = np.random.default_rng(bits)
    for _ in range(20):
        low, high = np.sort(rng.normal(0, 10.0 ** rng.integers(-30, 30), 2).astype(np.float32))
        thresholds = (
            low + (np.arange(2**bits - 1) + 0.5) * (float(high) - float(low)) / (2**bits - 1)
        ).astype(np.float32)
        near = [thresholds, np.nextafter(thresholds, np.float32(np.inf)), np.nextafter(thresholds, -np.inf)]
        x = np.concatenate(([low, high], *near)).clip(low, high).astype(np.float32)
        assert quantize(x, bits)[1].tolist() == reference.quantize([float(v) for v in x], bits).levels


@given(TENSORS, BITS)
def test_error_is_at_most_half_a_step(x, bits):
    value_range, levels = quantize(x, bits)
    decoded = level_values(value_range, bits)[levels].astype(np.float64)
    step = (value_range.maximum - value_range.minimum) / (2**bits - 1)
    # Half a step, and the rounding of the result to float32.
    allowed = step / 2 * (1 + 1e-12) + float(np.abs(x).max()) * 2**-24 + 2**-150
    assert np.abs(decoded - x).max() <= allowed


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -GREATEST, GREATEST, DENORMAL, -DENORMAL])
@pytest.mark.parametrize("size", [1, 2, 33])
def test_a_constant_comes_back_exactly(value, size):
    value_range, levels = quantize(np.full(size, value, np.float32), 4)
    assert levels.tolist() == [0] * size
    assert level_values(value_range, 4).tolist() == [value] * 16


def test_range_beyond_float32_is_quantized():
    value_range, levels = quantize(np.array([-GREATEST, 0, GREATEST], np.float32), 8)
    assert levels.tolist() == [0, 128, 255]
    assert level_values(value_range, 8)[[0, 255]].tolist() == [-GREATEST, GREATEST]


def test_smallest_range_is_quantized():
    _, levels = quantize(np.array([0, DENORMAL, 3 * DENORMAL], np.float32), 2)
    assert levels.tolist() == [0, 1, 3]


def test_negative_zero_is_the_lesser_zero():
    value_range, levels = quantize(np.array([0.0, -0.0], np.float32), 2)
    assert value_range.pack().hex() == "8000000000000000"
    assert levels.tolist() == [0, 0]
