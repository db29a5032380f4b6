"""Step maps: energies of blocks, four bits each, and how an encoder keeps them with the picture."""

from __future__ import annotations

import numpy as np
import pytest

from codec.errors import BadStepMap
from codec.feature.step_map import (
    StepGuide,
    block_energy,
    pack_step_map,
    parse_step_map,
    step_map_bytes,
)
from codec.layout import TensorSpec

DOWN, ACROSS = 3, 4
UNIT, OLDEST, SHARE = 0.5, 16, 0.5  # as docs/protocol.md says
STILL = np.zeros((DOWN * ACROSS, 2), np.int8)


def energies(*units):
    return np.exp(UNIT * np.array(units, float))


def test_says_what_is_written_in_the_protocol():
    """Half a natural logarithm a unit, from the mean of the group, 8 is the mean; an odd map ends with four zeros."""
    assert pack_step_map([energies(-2, 1, 1)]) == bytes.fromhex("6990")
    assert pack_step_map([energies(-2, 1, 1), energies(40, 40)]) == bytes.fromhex("699880")[:3]


def test_comes_back_to_within_half_a_unit():
    some, others = (np.random.default_rng(n).uniform(-3.5, 3.5, size) for n, size in enumerate((12, 7)))
    data = pack_step_map([np.exp(some * UNIT).reshape(3, 4), np.exp(others * UNIT)])
    assert len(data) == 10
    for parsed, units in zip(parse_step_map(data, [12, 7]), (some, others), strict=True):
        assert parsed.dtype == np.float32
        np.testing.assert_allclose(parsed, (units - units.mean()) * UNIT, atol=UNIT / 2 + 1e-6)


def test_what_is_far_from_the_mean_is_cut_off():
    (parsed,) = parse_step_map(pack_step_map([np.array([0, 1, 1, 1, 1, 1e30])]), [6])
    assert parsed.min() == -8 * UNIT
    assert parsed.max() == 7 * UNIT


def test_next_to_no_energy_is_much_like_none():
    """As 1e-9 is added: 2e-9 and 8e-9 are 1.4 apart, and a unit each from their mean."""
    assert pack_step_map([np.array([1e-9, 7e-9])]) == b"\x79"
    assert pack_step_map([np.array([0, 1e-9])]) == b"\x79"


def test_groups_share_a_byte():
    layout = TensorSpec("a", (1, 4, 4)), TensorSpec("b", (1, 1, 2))
    assert step_map_bytes(layout) == len(pack_step_map([energies(1), energies(1)])) == 1
    assert step_map_bytes([TensorSpec("a", (1, 5, 9))]) == 3  # of 2x3 blocks


@pytest.mark.parametrize("size", [0, 9, 11])
def test_refuses_another_size(size):
    with pytest.raises(BadStepMap, match=f"{size} bytes for 19 blocks"):
        parse_step_map(bytes(size), [12, 7])


@pytest.mark.parametrize("energy", [np.nan, np.inf])
def test_there_is_no_map_of_what_is_not_finite(energy):
    with pytest.raises(BadStepMap):
        pack_step_map([np.array([1, energy])])


def test_energy_is_that_of_the_components_of_the_gradient():
    """Block by block, as the sum of squares of what a change of each component would do."""
    rng = np.random.default_rng(0)
    inverse, gradient = rng.normal(size=(3, 3)), rng.normal(size=(3, 6, 9)).astype(np.float32)
    energy = block_energy(inverse, gradient)
    assert energy.shape == (2, 3)
    for y, x in np.ndindex(energy.shape):
        block = gradient[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].reshape(3, -1)
        assert energy[y, x] == pytest.approx(((inverse.T @ block) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("gradient", [1e30, np.inf])  # infinity less itself is NaN on every machine
def test_energy_beyond_float32_is_not_finite_and_no_warning(gradient):
    inverse = np.array([[2.0**48, 2.0**48], [2.0**48, -(2.0**48)]])
    assert not np.isfinite(block_energy(inverse, np.full((2, 4, 4), gradient, np.float32))).any()


def test_squares_beyond_float32_are_finite():
    assert block_energy(np.eye(1), np.full((1, 4, 4), 1e25, np.float32)) == pytest.approx(16e50)


def guide_with(values, frames_ago=0, vectors=()):
    guide = StepGuide(DOWN, ACROSS)
    for each in vectors:
        guide.advance(each)
    guide.take(np.asarray(values, np.float32).reshape(-1), frames_ago)
    return guide


def moved_by(guide):
    """The guide's map less its mean."""
    return guide.mix(np.zeros((DOWN, ACROSS), np.float32)) / SHARE


def test_without_a_map_the_prediction_stands():
    predicted = np.random.default_rng(0).normal(size=(DOWN, ACROSS)).astype(np.float32)
    assert StepGuide(DOWN, ACROSS).mix(predicted) is predicted


def test_a_map_has_its_share_and_the_mean_is_the_predictions():
    predicted, values = np.random.default_rng(0).normal(5, 1, (2, DOWN, ACROSS)).astype(np.float32)
    mixed = guide_with(values).mix(predicted)
    assert mixed.mean() == pytest.approx(predicted.mean(), abs=1e-5)
    expected = (1 - SHARE) * (predicted - predicted.mean()) + SHARE * (values - values.mean())
    np.testing.assert_allclose(mixed - mixed.mean(), expected, atol=1e-5)


def test_a_map_follows_the_picture():
    """Blocks come from half a block to the left, and from beyond the edge the edge's."""
    vectors = STILL.copy()
    vectors[:, 1] = -8
    values = np.tile(np.array([0, 4, 0, 0], np.float32), (DOWN, 1))
    guide = guide_with(values)
    guide.advance(vectors)
    expected = np.tile(np.array([0, 2, 2, 0]), (DOWN, 1))
    np.testing.assert_allclose(moved_by(guide), expected - expected.mean(), atol=1e-5)


def test_vectors_down_and_of_single_blocks():
    vectors = STILL.copy()
    vectors[5] = (4, 0)
    values = np.arange(12, dtype=np.float32).reshape(DOWN, ACROSS)
    guide = guide_with(values)
    guide.advance(vectors)
    expected = values.copy()
    expected[1, 1] += 1  # a quarter of the way to the block below, which has 4 more
    np.testing.assert_allclose(moved_by(guide), expected - expected.mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("vector", "place"),
    [((127, 0), np.s_[-1:]), ((-128, 0), np.s_[:1]), ((0, 127), np.s_[:, -1:]), ((0, -128), np.s_[:, :1])],
)
def test_beyond_an_edge_is_what_is_next_to_it(vector, place):
    values = np.random.default_rng(0).normal(size=(DOWN, ACROSS)).astype(np.float32)
    guide = guide_with(values)
    guide.advance(np.tile(np.array(vector, np.int8), (DOWN * ACROSS, 1)))
    expected = np.broadcast_to(values[place], values.shape)
    np.testing.assert_allclose(moved_by(guide), expected - expected.mean(), atol=1e-5)


def test_vectors_may_be_overwritten():
    vectors, values = np.full_like(STILL, 8), np.arange(12, dtype=np.float32)
    guide = StepGuide(DOWN, ACROSS)
    guide.advance(vectors)
    vectors[:] = 0
    guide.take(values, 1)
    np.testing.assert_allclose(
        moved_by(guide), moved_by(guide_with(values, 1, [np.full_like(STILL, 8)])), atol=1e-6
    )
    assert not np.allclose(moved_by(guide), moved_by(guide_with(values)))


def test_between_four_blocks_each_has_its_part():
    vectors = STILL.copy()
    vectors[5] = (4, 8)
    values = np.random.default_rng(0).normal(size=(DOWN, ACROSS)).astype(np.float32)
    guide = guide_with(values)
    guide.advance(vectors)
    expected = values.copy()
    expected[1, 1] = 0.375 * values[1, 1:3].sum() + 0.125 * values[2, 1:3].sum()
    np.testing.assert_allclose(moved_by(guide), expected - expected.mean(), atol=1e-5)
    assert moved_by(guide).dtype == np.float32


def test_a_late_map_catches_up():
    rng = np.random.default_rng(3)
    frames = [rng.integers(-8, 9, STILL.shape).astype(np.int8) for _ in range(5)]
    values = rng.normal(size=(DOWN, ACROSS)).astype(np.float32)
    in_time = guide_with(values, vectors=frames[:2])
    for vectors in frames[2:]:
        in_time.advance(vectors)
    late = guide_with(values, frames_ago=3, vectors=frames)
    np.testing.assert_allclose(moved_by(late), moved_by(in_time), atol=1e-6)
    assert not np.allclose(moved_by(late), moved_by(guide_with(values)))


@pytest.mark.parametrize(("frames", "frames_ago"), [(3, 4), (OLDEST + 5, OLDEST + 1), (0, 2**32 - 1)])
def test_a_map_from_before_what_is_known_of_motion_is_left_out(frames, frames_ago):
    predicted = np.ones((DOWN, ACROSS), np.float32)
    guide = guide_with(np.arange(12), frames_ago, [STILL] * frames)
    assert guide.mix(predicted) is predicted


def test_the_oldest_map_that_is_of_use():
    values = np.arange(12, dtype=np.float32).reshape(DOWN, ACROSS)
    guide = guide_with(values, OLDEST, [STILL] * (OLDEST + 5))
    np.testing.assert_allclose(moved_by(guide), values - values.mean(), atol=1e-5)


def test_another_scene_has_nothing_of_the_one_before():
    predicted = np.ones((DOWN, ACROSS), np.float32)
    guide = guide_with(np.arange(12), vectors=[STILL] * 3)
    guide.forget()
    assert guide.mix(predicted) is predicted
    guide.take(np.arange(12, dtype=np.float32), 1)
    assert guide.mix(predicted) is predicted
