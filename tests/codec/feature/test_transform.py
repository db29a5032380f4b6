"""The block transform: its integer inverse exactly as the slow one's, its forward half near enough to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.feature import transform
from codec.feature.transform import COARSEST, FINEST, STEPS, ForwardTransform, InverseTransform
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_rotation

DOWN, ACROSS = 2, 3
BLOCKS = DOWN * ACROSS


STILL = np.zeros((16, 0, 0), np.int16)  # nothing is rotated


def add_inverse(levels, lasts, deltas, samples, rotation=STILL):
    samples = samples.copy()
    inverse = InverseTransform(rotation, 4 * DOWN, 4 * ACROSS)
    inverse.add(levels, lasts, deltas, samples)
    return samples


def forward(samples, prediction, offset, deltas, rounding, *, rotation=STILL, held_back=0.0):
    components = len(samples)
    levels = np.full((components, 16, BLOCKS), 99, np.int16)
    lasts = np.full((components, BLOCKS), 99, np.int8)
    ForwardTransform(rotation, components, 4 * DOWN, 4 * ACROSS).quantize(
        samples, prediction, offset, deltas, rounding, np.full(BLOCKS, held_back, np.float32), levels, lasts
    )
    return levels, lasts


def lasts_of(levels):
    places = np.arange(1, 17, dtype=np.int8)[:, None]
    return (np.where(levels != 0, places, 0).max(1) - 1).astype(np.int8)


def expected_inverse(levels, deltas, samples, rotation):
    coefficients = reference.dequantize(rotation, levels.astype(np.int64).transpose(0, 2, 1), deltas)
    added = [reference.inverse_dct(own, DOWN, ACROSS) for own in coefficients]
    return np.clip(samples + np.stack(added), -32768, 32767)


def test_steps_are_those_of_the_text():
    assert STEPS.tolist() == reference.STEPS
    assert (STEPS[0], STEPS[FINEST], STEPS[COARSEST]) == (1, 4, 32768)


def test_no_step_lies_near_a_tie():
    """Rounding is the same on every machine, however exact its powers are."""
    exact = 2.0 ** (np.arange(COARSEST + 1) / 16)
    assert np.abs(exact % 1 - 0.5).min() > 1e-4


def test_block_steps_stay_in_range():
    changes = np.arange(-12, 13, dtype=np.int8)
    assert transform.block_steps(150, changes).tolist() == [150 + 4 * change for change in range(-12, 13)]
    assert transform.block_steps(FINEST, changes).min() == FINEST
    assert transform.block_steps(COARSEST, changes).max() == COARSEST


@pytest.mark.parametrize("frame_step", [FINEST, 150, COARSEST])
def test_steps_that_are_set_are_block_steps(frame_step):
    changes = np.arange(-12, 13, dtype=np.int8)
    steps, deltas = np.zeros((2, changes.size), np.int32)
    transform.set_steps(frame_step, changes, steps, deltas)
    assert np.array_equal(steps, transform.block_steps(frame_step, changes))
    assert np.array_equal(deltas, STEPS[steps])


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 40, 2000, 32767]),
    st.sampled_from([4, 100, 32768]),
    st.sampled_from([0, 100, 32768]),
)
def test_the_inverse_is_the_slow_one(seed, largest, delta, spread):
    rng = np.random.default_rng(seed)
    levels = (
        rng.integers(-largest, largest + 1, (3, 16, BLOCKS)) * rng.integers(0, 2, (3, 16, BLOCKS))
    ).astype(np.int16)
    levels[1] = 0
    deltas = rng.integers(4, delta + 1, BLOCKS).astype(np.int32)
    samples = (
        rng.integers(-spread, spread + 1, (3, 4 * DOWN, 4 * ACROSS)).clip(-32768, 32767).astype(np.int16)
    )
    for side in (0, 2, 3):  # components that are rotated, of 3
        rotation = make_rotation(side, rng)
        found = add_inverse(levels, lasts_of(levels), deltas, samples, rotation)
        assert np.array_equal(found, expected_inverse(levels, deltas, samples, rotation))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_inverse_saturates(sign):
    levels = np.zeros((1, 16, BLOCKS), np.int16)
    levels[0, 0] = sign * 32767
    deltas = np.full(BLOCKS, 32768, np.int32)
    found = add_inverse(levels, lasts_of(levels), deltas, np.full((1, 8, 12), sign * 9, np.int16))
    assert (found == (32767 if sign > 0 else -32768)).all()


def test_the_inverse_leaves_a_component_without_levels():
    """Its levels are not even looked at: a decoder does not fill them."""
    samples = np.arange(96, dtype=np.int16).reshape(1, 8, 12)
    levels = np.full((1, 16, BLOCKS), 77, np.int16)
    lasts = np.full((1, BLOCKS), -1, np.int8)
    assert np.array_equal(add_inverse(levels, lasts, np.full(BLOCKS, 9, np.int32), samples), samples)


@given(st.integers(0, 2**32), st.sampled_from([4, 64, 700]))
def test_forward_and_inverse_lose_little_more_than_the_rounding(seed, delta):
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 3000, (2, 4 * DOWN, 4 * ACROSS)).astype(np.float32)
    prediction = rng.integers(-500, 500, samples.shape).astype(np.int16)
    offset = np.array([10.5, -200], np.float32)
    deltas = np.full(BLOCKS, delta, np.int32)
    for rotation in (STILL, make_rotation(2, rng)):
        half = np.full((2, 16), 0.5, np.float32)
        levels, lasts = forward(samples, prediction, offset, deltas, half, rotation=rotation)
        assert np.array_equal(lasts, lasts_of(levels))
        found = add_inverse(levels, lasts, deltas, prediction, rotation)
        error = found - (samples - offset[:, None, None])
        # Orthonormal, so that the mean square is that of the coefficients: delta**2 / 12 and two roundings.
        assert np.sqrt((error**2).mean()) < 0.36 * delta + 3


def test_forward_cuts_off_what_is_not_rounded_up():
    samples = np.full((1, 8, 12), 0.0, np.float32)
    samples[0, :4, :4] = 100 / 4 * 1.55  # mean coefficient 155, in steps of 100
    deltas = np.full(BLOCKS, 100, np.int32)
    zeros = np.zeros((1, 8, 12), np.int16), np.zeros(1, np.float32)
    for added, level in ((0.4, 1), (0.5, 2)):
        levels, lasts = forward(samples, *zeros, deltas, np.full((1, 16), added, np.float32))
        assert levels[0, 0, 0] == level
        assert lasts.tolist() == [[0] + [-1] * 5]


def test_forward_takes_off_what_is_held_back():
    samples = np.zeros((1, 8, 12), np.float32)
    samples[0, :4, :4] = 100 / 4 * 0.65  # in steps of 100
    zeros = np.zeros((1, 8, 12), np.int16), np.zeros(1, np.float32)
    deltas, rounding = np.full(BLOCKS, 100, np.int32), np.full((1, 16), 0.5, np.float32)
    for held_back, last in ((0.0, 0), (0.2, -1)):
        levels, lasts = forward(samples, *zeros, deltas, rounding, held_back=held_back)
        assert levels[0, 0, 0] == last + 1
        assert lasts.tolist() == [[last] + [-1] * 5]


def test_levels_are_of_the_rotated_components():
    """All of what two components have in common becomes the first one's."""
    samples = np.full((2, 8, 12), 40.0, np.float32)
    zeros = np.zeros((2, 8, 12), np.int16), np.zeros(2, np.float32)
    turn = np.round(np.array([[1, 1], [-1, 1]]) * np.sqrt(0.5) * 1024).astype(np.int16)
    levels, lasts = forward(
        samples, *zeros, np.full(BLOCKS, 10, np.int32), np.full((2, 16), 0.5, np.float32),
        rotation=np.tile(turn, (16, 1, 1)),
    )  # fmt: skip
    assert levels[:, 0].tolist() == [[23] * BLOCKS, [0] * BLOCKS]  # of 4 * 40 * sqrt(2) / 10
    assert lasts.tolist() == [[0] * BLOCKS, [-1] * BLOCKS]


def test_forward_undoes_a_rotation_as_it_is_rounded():
    """One that is longer than 1 by nearly what a profile's may be."""
    longer = np.tile(np.array([[1031]], np.int16), (16, 1, 1))
    samples, prediction = np.full((1, 8, 12), 1000, np.float32), np.zeros((1, 8, 12), np.int16)
    deltas = np.full(BLOCKS, 4, np.int32)
    levels, lasts = forward(
        samples, prediction, np.zeros(1, np.float32), deltas, np.full((1, 16), 0.5, np.float32),
        rotation=longer,
    )  # fmt: skip
    assert np.abs(add_inverse(levels, lasts, deltas, prediction, longer) - 1000).max() <= 2


def test_all_components_are_transformed_though_only_the_first_are_rotated():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1000, (70, 4 * DOWN, 4 * ACROSS)).astype(np.float32)
    rotation, deltas = make_rotation(32, rng), np.full(BLOCKS, 200, np.int32)
    levels, lasts = forward(
        samples, np.zeros(samples.shape, np.int16), np.arange(70, dtype=np.float32), deltas,
        np.full((70, 16), 0.5, np.float32), rotation=rotation,
    )  # fmt: skip
    exact = transform.rotated_spectrum(rotation, samples, np.arange(70, dtype=np.float32)) / 200
    assert np.abs(levels - exact).max() < 0.55
    assert np.array_equal(lasts, lasts_of(levels))


def test_forward_bounds_its_levels():
    samples = np.full((1, 8, 12), -1e9, np.float32)
    levels, _ = forward(
        samples, np.zeros(samples.shape, np.int16), np.zeros(1, np.float32), np.full(BLOCKS, 4, np.int32),
        np.full((1, 16), 0.5, np.float32),
    )  # fmt: skip
    assert (levels[0, 0] == -32767).all()
    assert not levels[0, 1:].any()


@given(st.integers(0, 2**32))
def test_forward_agrees_with_its_twin(seed):
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 1000, (2, 4 * DOWN, 4 * ACROSS)).astype(np.float32)
    deltas = rng.integers(4, 300, BLOCKS).astype(np.int32)
    rounding = rng.uniform(0.3, 0.5, (2, 16)).astype(np.float32)
    levels, _ = forward(samples, np.zeros(samples.shape, np.int16), np.zeros(2, np.float32), deltas, rounding)
    exact = transform.forward_reference(samples.astype(np.float64)) / deltas
    expected = np.sign(exact) * np.floor(np.abs(exact) + rounding[:, :, None])
    near = np.abs((np.abs(exact) + rounding[:, :, None]) % 1 - 0.5) > 0.499
    assert np.array_equal(levels[~near], expected[~near])
    assert np.abs(levels - expected).max() <= 1


def test_the_twin_is_orthonormal_and_in_zigzag_order():
    samples = np.random.default_rng(0).normal(size=(3, 8, 12))
    coefficients = transform.forward_reference(samples)
    assert np.isclose((samples**2).sum(), (coefficients**2).sum())
    x = np.cos(np.pi * (np.arange(4) + 0.5) * 1 / 4)
    wave = np.tile(np.outer(np.ones(4), x), (2, 3))[None]
    assert np.argmax(np.abs(transform.forward_reference(wave))[0, :, 0]) == reference.ORDER.index((0, 1))


def test_the_twin_of_a_rotation_leaves_the_other_components():
    rng = np.random.default_rng(0)
    samples, offset = rng.normal(0, 1000, (3, 8, 12)).astype(np.float32), np.zeros(3, np.float32)
    rotation = make_rotation(2, rng)
    plain, rotated = (
        transform.forward_reference(samples),
        transform.rotated_spectrum(rotation, samples, offset),
    )
    assert np.array_equal(plain[2], rotated[2])
    assert np.allclose(rotated[:2, 5], rotation[5] / 1024 @ plain[:2, 5], rtol=1e-4, atol=0.1)


def test_rounding_is_down_where_levels_are_rare():
    prior = np.array([[1, 50, 400, 60000] * 4], np.uint16)
    added = transform.rounding(prior, 150, 0.02)
    assert added.dtype == np.float32
    assert (np.diff(added[0, :4]) >= 0).all()
    assert added.min() >= 0.3
    assert added.max() <= 0.5
    assert added[0, 0] < added[0, 3]
