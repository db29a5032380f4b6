"""Motion: compensation exactly as the slow one, a search that finds what moved, checksums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import motion
from tests.codec import reference_feature as reference

DOWN, ACROSS = 3, 4
SHAPE = 4 * DOWN, 4 * ACROSS


def last(planes):
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def picture(seed, components=5, height=SHAPE[0], width=SHAPE[1], largest=3000):
    rng = np.random.default_rng(seed)
    rough = rng.normal(0, largest / 2, (components, height + 8, width + 8))
    for _ in range(3):
        rough = (rough + np.roll(rough, 1, 1) + np.roll(rough, 1, 2)) / 2
    return np.clip(rough, -32768, 32767).astype(np.int16)


def test_taps_are_those_of_the_text_and_sum_to_one():
    assert motion.TAPS.tolist() == [list(taps) for taps in reference.TAPS]
    assert (motion.TAPS.sum(1) == 256).all()


@given(st.integers(0, 2**32), st.sampled_from([100, 32767]))
def test_compensation_is_the_slow_one(seed, largest):
    """Every vector, over every edge; saturating samples too."""
    rng = np.random.default_rng(seed)
    planes = rng.integers(-largest - 1, largest + 1, (3, *SHAPE)).astype(np.int16)
    vectors = rng.integers(-8, 9, (DOWN * ACROSS, 2)).astype(np.int8)
    vectors[rng.integers(0, 2, len(vectors)) == 0] = 0
    prediction = np.full((*SHAPE, 3), 99, np.int16)
    motion.compensate(last(planes), vectors, prediction)
    expected = reference.predict(planes.astype(np.int64), vectors.tolist(), ACROSS)
    assert np.array_equal(prediction, last(expected))


def search(current, reference_frame, vectors, bit_cost, refine):
    """The search, its differences left alone."""
    return motion.search(
        current, reference_frame, vectors, np.zeros(len(vectors), np.int64), bit_cost, refine
    )


@pytest.mark.parametrize("vector", [(y, x) for y in range(-8, 9, 3) for x in range(-8, 9)])
def test_one_vector_for_all_blocks(vector):
    planes = picture(1)[:, : SHAPE[0], : SHAPE[1]]
    vectors = np.array([vector] * (DOWN * ACROSS), np.int8)
    prediction = np.empty((*SHAPE, 5), np.int16)
    motion.compensate(last(planes), vectors, prediction)
    assert np.array_equal(
        prediction, last(reference.predict(planes.astype(np.int64), vectors.tolist(), ACROSS))
    )


def test_components_move_to_the_end_and_back():
    planes = np.random.default_rng(0).integers(-99, 99, (5, 8, 20)).astype(np.int16)
    samples = np.empty((8, 20, 5), np.int16)
    motion.components_last(planes, samples)
    assert np.array_equal(samples, last(planes))
    back = np.empty_like(planes)
    motion.components_first(samples, back)
    assert np.array_equal(back, planes)
    some = np.empty((8, 20, 2), np.int16)
    motion.components_last(planes, some)
    assert np.array_equal(some, last(planes[:2]))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -2), (-1, 1), (2, 2)])
def test_the_search_finds_whole_samples(down, right):
    wide = picture(3)
    reference_frame = wide[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    current = wide[:, 4 + down : 4 + down + SHAPE[0], 4 + right : 4 + right + SHAPE[1]]
    vectors = np.full((DOWN * ACROSS, 2), 77, np.int8)
    remaining = search(last(current), last(reference_frame), vectors, 1, 2)
    inner = vectors.reshape(DOWN, ACROSS, 2)[1:-1, 1:-1]
    assert (inner == (4 * down, 4 * right)).all()
    assert remaining <= int(np.abs(current.astype(int) - reference_frame).sum())


@pytest.mark.parametrize("refine", [1, 2])
def test_the_search_finds_parts_of_samples(refine):
    wide = picture(5)
    step = 2 if refine == 1 else 1
    moved = reference.predict(wide.astype(np.int64), [(step, -step)] * (5 * 6), 6)
    inside = np.s_[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    found = search(last(moved[inside].astype(np.int16)), last(wide[inside]), vectors, 1, refine)
    assert (vectors.reshape(DOWN, ACROSS, 2)[1:-1, 1:-1] == (step, -step)).all()
    whole = search(last(moved[inside].astype(np.int16)), last(wide[inside]), vectors, 1, 0)
    assert found < whole
    assert not (vectors & 3).any()


@given(st.integers(0, 2**32), st.integers(-1, 2), st.sampled_from([0, 1, 100, 65536]))
def test_the_search_stays_in_range_and_says_what_remains(seed, refine, bit_cost):
    rng = np.random.default_rng(seed)
    current, reference_frame = rng.integers(-32768, 32768, (2, 3, *SHAPE)).astype(np.int16)
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    remaining = search(last(current), last(reference_frame), vectors, bit_cost, refine)
    assert np.abs(vectors).max() <= 8
    moved = reference.predict(reference_frame.astype(np.int64), vectors.tolist(), ACROSS)
    assert remaining == np.abs(current - moved).sum()


@given(st.integers(0, 2**32), st.sampled_from([-1, 1]))
def test_differences_are_of_each_block(seed, refine):
    rng = np.random.default_rng(seed)
    current, reference_frame = rng.integers(-32768, 32768, (2, 3, *SHAPE)).astype(np.int16)
    vectors, left = np.empty((DOWN * ACROSS, 2), np.int8), np.full(DOWN * ACROSS, -1, np.int64)
    motion.search(last(current), last(reference_frame), vectors, left, 1, refine)
    assert vectors.any() == (refine >= 0)
    moved = reference.predict(reference_frame.astype(np.int64), vectors.tolist(), ACROSS)
    assert left.tolist() == by_block(np.abs(current - moved))
    motion.block_differences(last(current), last(reference_frame), left)
    assert left.tolist() == by_block(np.abs(current.astype(np.int64) - reference_frame))


def by_block(samples):
    return samples.sum(0).reshape(DOWN, 4, ACROSS, 4).sum((1, 3)).ravel().tolist()


def test_a_still_frame_does_not_move():
    frame = last(picture(7)[:, : SHAPE[0], : SHAPE[1]])
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    assert search(frame, frame, vectors, 1, 2) == 0
    assert not vectors.any()


@given(st.integers(0, 2**32))
def test_the_checksum_is_the_slow_one(seed):
    planes = np.random.default_rng(seed).integers(-32768, 32768, (3, 8, 12)).astype(np.int16)
    state = reference.State(3, 8, 12, None, planes=planes.astype(np.int64))
    assert motion.checksum(planes) == reference.checksum([state])


def test_the_checksum_sees_every_sample_and_where_it_is():
    planes = np.random.default_rng(1).integers(-99, 99, (2, 4, 8)).astype(np.int16)
    sums = {int(motion.checksum(planes))}
    for place in np.ndindex(planes.shape):
        changed = planes.copy()
        changed[place] += 1
        sums.add(int(motion.checksum(changed)))
    assert len(sums) == 1 + planes.size
    assert motion.checksum(np.ascontiguousarray(planes[::-1])) not in sums


def test_magnitude_sums_without_overflow():
    samples = np.full((64, 64, 16), -32768, np.int16)
    assert motion.magnitude(samples) == 64 * 64 * 16 * 32768
