"""The rotation of a frequency's coefficients: orthonormal as rounded, to uncorrelated components, always the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec.feature.profile import ROTATION_TOLERANCE
from codec.feature.rotation import (
    MOST_ROTATED,
    ROTATION_UNIT,
    no_rotation,
    principal_axes,
    rotated_components,
)
from codec.feature.transform import EXACT_LEVEL
from tests.codec.calibrated import make_rotation


def covariances(seed, side):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(16, side, 3 * side)) * np.geomspace(1000, 1, side)[:, None]
    values = rng.normal(size=(16, side, side)) @ values
    return values @ values.transpose(0, 2, 1)


def test_nothing_is_rotated_by_none():
    assert rotated_components(3) == 3
    assert rotated_components(2048) == 32  # as docs/bitstream.md says
    assert np.array_equal(no_rotation(2), np.tile(np.diag([ROTATION_UNIT] * 2), (16, 1, 1)))
    assert no_rotation(100).shape == (16, MOST_ROTATED, MOST_ROTATED)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, MOST_ROTATED]))
def test_principal_axes_are_orthonormal_as_they_are_rounded(seed, side):
    axes = principal_axes(covariances(seed, side))
    assert axes.dtype == np.int16
    products = axes.astype(np.int64) @ axes.transpose(0, 2, 1)
    assert np.abs(products - ROTATION_UNIT**2 * np.eye(side)).max() <= ROTATION_TOLERANCE / 2


def test_principal_axes_are_uncorrelated_and_fall():
    given_ = covariances(1, 4)
    axes = principal_axes(given_) / ROTATION_UNIT
    turned = axes @ given_ @ axes.transpose(0, 2, 1)
    spread = turned.diagonal(axis1=1, axis2=2)
    assert (np.diff(spread) < 0).all()
    off = turned * (1 - np.eye(4))
    assert np.abs(off).max(axis=(1, 2)).max() < 5e-3 * spread[:, 0].max()


def test_principal_axes_are_rounded_to_the_nearest():
    """Components of which the spread is along (5, 12), and a third of it across."""
    along, across = np.array([5, 12]) / 13, np.array([12, -5]) / 13
    covariance = 9 * np.outer(along, along) + np.outer(across, across)
    axes = principal_axes(np.tile(covariance, (16, 1, 1)))
    assert axes.tolist() == [[[394, 945], [945, -394]]] * 16  # of 393.8 and 945.2


def test_the_sign_of_an_axis_is_fixed():
    axes = principal_axes(covariances(2, 5))
    assert (np.take_along_axis(axes, np.abs(axes).argmax(2)[:, :, None], 2) > 0).all()


@given(st.integers(0, 2**32))
def test_what_is_rotated_stays_within_32_bits(seed):
    """Rows that are orthonormal to the tolerance bound the sum of each column's magnitudes by 8192."""
    rotation = make_rotation(MOST_ROTATED, np.random.default_rng(seed)).astype(np.int64)
    # The norm of a matrix is that of its transpose: at most the root of 1 + 32 * tolerance.
    assert np.sqrt(MOST_ROTATED * (1 + MOST_ROTATED * ROTATION_TOLERANCE / 2**20)) * ROTATION_UNIT < 2**13
    assert np.abs(rotation).sum(1).max() * 2**17 < 2**31
    assert 2**13 * EXACT_LEVEL < 2**24  # exact in binary32
