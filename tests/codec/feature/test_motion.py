"""Motion: compensation exactly as the slow one, a search that finds what moved, checksums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.feature import motion
from tests.codec import reference_feature as reference

DOWN, ACROSS = 3, 4
SHAPE = 4 * DOWN, 4 * ACROSS


def padded(planes):
    components, height, width = planes.shape
    samples = motion.padded_frame(height, width, components)
    motion.pad(np.ascontiguousarray(planes), samples)
    return samples


def compensated(planes, vectors, sharp=None):
    """What the vectors make of planes."""
    prediction = planes.copy()
    sharp = np.zeros(len(vectors), np.uint8) if sharp is None else sharp
    motion.compensate(padded(planes), vectors, sharp, prediction, *motion.workspace_for(len(planes)))
    return prediction


def picture(seed, components=5, height=SHAPE[0], width=SHAPE[1], largest=3000):
    rng = np.random.default_rng(seed)
    rough = rng.normal(0, largest / 2, (components, height + 8, width + 8))
    for _ in range(3):
        rough = (rough + np.roll(rough, 1, 1) + np.roll(rough, 1, 2)) / 2
    return np.clip(rough, -32768, 32767).astype(np.int16)


def test_taps_are_those_of_the_text_and_sum_to_one():
    assert motion.TAPS.tolist() == [[list(taps) for taps in parts] for parts in reference.TAPS]
    assert (motion.TAPS.sum(2) == 256).all()


@given(st.integers(0, 2**32), st.sampled_from([100, 32767]))
def test_compensation_is_the_slow_one(seed, largest):
    """Every vector, over every edge; saturating samples too."""
    rng = np.random.default_rng(seed)
    planes = rng.integers(-largest - 1, largest + 1, (3, *SHAPE)).astype(np.int16)
    vectors = rng.integers(-8, 9, (DOWN * ACROSS, 2)).astype(np.int8)
    vectors[rng.integers(0, 2, len(vectors)) == 0] = 0
    sharp = rng.integers(0, 2, len(vectors)).astype(np.uint8)
    expected = reference.predict(planes.astype(np.int64), vectors.tolist(), ACROSS, sharp.tolist())
    assert np.array_equal(compensated(planes, vectors, sharp), expected)


def search(current, reference_frame, vectors, bit_cost, refine, *, reach=2, still=0, sharp=None):
    """The search for planes, of which each block has changed."""
    sharp = np.zeros(len(vectors), np.uint8) if sharp is None else sharp
    last = padded(current)
    last += 1
    return motion.search(
        padded(current), last, padded(reference_frame), np.full(len(vectors), still, np.uint8), vectors, sharp,
        bit_cost, 0, reach, refine,
    )  # fmt: skip


@pytest.mark.parametrize(("components", "width"), [(3, 12), (4, 12), (8, 136)])
def test_what_is_laid_out_continues_its_edges(components, width):
    planes = picture(1, components, 8, width).astype(np.int16)[:, :8, :width]
    edge = (motion.MARGIN, motion.MARGIN)
    expected = np.pad(planes.transpose(1, 2, 0), (edge, edge, (0, 0)), "edge")
    assert np.array_equal(padded(planes), expected)
    offset = np.arange(components).astype(np.float32)
    rounded = motion.padded_frame(8, width, components)
    motion.pad_rounded(planes + offset[:, None, None] + np.float32(0.25), offset, rounded)
    assert np.array_equal(rounded, expected)


@pytest.mark.parametrize("vector", [(y, x) for y in range(-8, 9, 3) for x in range(-8, 9)])
def test_one_vector_for_all_blocks(vector):
    planes = picture(1)[:, : SHAPE[0], : SHAPE[1]]
    vectors = np.array([vector] * (DOWN * ACROSS), np.int8)
    expected = reference.predict(planes.astype(np.int64), vectors.tolist(), ACROSS)
    assert np.array_equal(compensated(planes, vectors), expected)


@pytest.mark.parametrize("components", [5, 2])
@pytest.mark.parametrize("width", [16, 20])
def test_a_frame_has_components_last_and_edges_that_go_on(components, width):
    planes = np.random.default_rng(0).integers(-99, 99, (5, 8, width)).astype(np.int16)
    samples = motion.padded_frame(8, width, components)
    motion.pad(planes, samples)
    margins = [(0, 0), *[(motion.MARGIN, motion.MARGIN)] * 2]
    assert np.array_equal(samples, np.pad(planes[:components], margins, "edge").transpose(1, 2, 0))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -2), (-1, 1), (2, 2)])
def test_the_search_finds_whole_samples(down, right):
    wide = picture(3)
    reference_frame = wide[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    current = wide[:, 4 + down : 4 + down + SHAPE[0], 4 + right : 4 + right + SHAPE[1]]
    vectors = np.full((DOWN * ACROSS, 2), 77, np.int8)
    remaining = search(current, reference_frame, vectors, 1, 2)
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
    found = search(moved[inside].astype(np.int16), wide[inside], vectors, 1, refine)
    assert (vectors.reshape(DOWN, ACROSS, 2)[1:-1, 1:-1] == (step, -step)).all()
    whole = search(moved[inside].astype(np.int16), wide[inside], vectors, 1, 0)
    assert found < whole
    assert not (vectors & 3).any()


@pytest.mark.parametrize("filter_", [0, 1])
def test_the_search_finds_the_filter(filter_):
    """The sharper one only where the other leaves not much less."""
    wide = picture(5)
    moved = reference.predict(wide.astype(np.int64), [(2, -2)] * (5 * 6), 6, [filter_] * (5 * 6))
    inside = np.s_[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    sharp = np.full(DOWN * ACROSS, 77, np.uint8)
    remaining = search(moved[inside].astype(np.int16), wide[inside], vectors, 1, 2, sharp=sharp)
    assert (sharp.reshape(DOWN, ACROSS)[1:-1, 1:-1] == filter_).all()
    prediction = reference.predict(wide[inside].astype(np.int64), vectors.tolist(), ACROSS, sharp.tolist())
    assert remaining == np.abs(moved[inside] - prediction).sum()


@pytest.mark.parametrize("noise", [50, 150, 400])
def test_the_sharper_filter_may_leave_a_little_more_and_some_more_where_blocks_move_together(noise):
    wide = picture(5)
    moved = reference.predict(wide.astype(np.int64), [(2, -2)] * (5 * 6), 6)
    inside = np.s_[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    current = moved[inside] + np.random.default_rng(4).normal(0, noise, (5, *SHAPE)).astype(int)
    vectors, sharp = np.empty((DOWN * ACROSS, 2), np.int8), np.empty(DOWN * ACROSS, np.uint8)
    search(current.astype(np.int16), wide[inside], vectors, 50, 2, sharp=sharp)
    planes = wide[inside].astype(np.int64), vectors.tolist(), ACROSS
    predictions = [reference.predict(*planes, [filter_] * len(vectors)) for filter_ in (0, 1)]
    smoother, sharper = (np.array(by_block(np.abs(current - prediction))) for prediction in predictions)
    field = vectors.reshape(DOWN, ACROSS, 2)
    around = np.zeros((DOWN + 1, ACROSS + 1, 2), np.int8)
    around[1:, 1:] = field
    together = ((field == around[1:, :-1]) & (field == around[:-1, 1:])).all(2).ravel()
    more = np.where(together, smoother >> 4, smoother >> 6)
    parts = (vectors % 4 != 0).any(1)
    assert sharp.tolist() == (parts & (sharper <= smoother + more)).tolist()
    assert together.any()
    assert parts.any()


@given(st.integers(0, 2**32), st.integers(0, 2), st.integers(0, 2), st.sampled_from([0, 1, 100, 65536]))
def test_the_search_stays_in_range_and_says_what_remains(seed, reach, refine, bit_cost):
    rng = np.random.default_rng(seed)
    current, reference_frame = rng.integers(-32768, 32768, (2, 3, *SHAPE)).astype(np.int16)
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    sharp = np.full(len(vectors), 77, np.uint8)
    remaining = search(current, reference_frame, vectors, bit_cost, refine, reach=reach, sharp=sharp)
    assert np.abs(vectors).max() <= (8 if reach and refine else 4 * reach)
    assert sharp.max() <= 1
    assert not sharp[(vectors % 4 == 0).all(1)].any()
    moved = reference.predict(reference_frame.astype(np.int64), vectors.tolist(), ACROSS, sharp.tolist())
    assert remaining == np.abs(current - moved).sum()


@given(st.integers(0, 2**32))
def test_differences_are_of_each_block(seed):
    current, last = np.random.default_rng(seed).integers(-32768, 32768, (2, 3, *SHAPE)).astype(np.int16)
    differences = np.full(DOWN * ACROSS, -1, np.int64)
    motion.block_differences(padded(current), padded(last), differences)
    assert differences.tolist() == by_block(np.abs(current.astype(np.int64) - last))


def by_block(samples):
    return samples.sum(0).reshape(DOWN, 4, ACROSS, 4).sum((1, 3)).ravel().tolist()


@pytest.mark.parametrize("reach", [0, 2])
def test_a_frame_does_not_move_if_it_is_still_or_must_not(reach):
    planes, other = picture(7), picture(8)
    planes, other = planes[:, : SHAPE[0], : SHAPE[1]], other[:, : SHAPE[0], : SHAPE[1]]
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    assert search(planes, planes if reach else other, vectors, 1, 2, reach=reach) == (
        0 if reach else np.abs(planes.astype(int) - other).sum()
    )
    assert not vectors.any()


def test_a_block_that_did_not_change_does_not_move():
    """Whatever the reference made of it; others do."""
    wide = picture(3)
    reference_frame = wide[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    current = wide[:, 5 : 5 + SHAPE[0], 4 : 4 + SHAPE[1]]
    last = current.copy()
    last[:, :, 8:] += 10
    vectors, all_vectors = np.empty((2, DOWN * ACROSS, 2), np.int8)
    frames = padded(current), padded(last), padded(reference_frame), np.zeros(len(vectors), np.uint8)
    sharp = np.full(len(vectors), 77, np.uint8)
    motion.search(*frames, vectors, sharp, 1, 0, 2, 2)
    search(current, reference_frame, all_vectors, 1, 2)
    still = np.tile([True, True, False, False], DOWN)
    assert not vectors[still].any()
    assert vectors[~still].any()
    assert all_vectors[still].any()
    motion.search(*frames, vectors, sharp, 1, 16 * 5 * 10, 2, 2)
    assert not vectors.any()


def test_a_still_block_does_not_move():
    wide = picture(3)
    reference_frame = wide[:, 4 : 4 + SHAPE[0], 4 : 4 + SHAPE[1]]
    current = wide[:, 5 : 5 + SHAPE[0], 4 : 4 + SHAPE[1]]
    vectors = np.empty((DOWN * ACROSS, 2), np.int8)
    search(current, reference_frame, vectors, 1, 2)
    assert vectors.any()
    search(current, reference_frame, vectors, 1, 2, still=1)
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


@given(st.integers(0, 2**32), st.sampled_from([10.0, 1e5]))
def test_a_frame_as_it_is_taken_is_rounded_and_saturated(seed, scale):
    rng = np.random.default_rng(seed)
    planes = (scale * rng.normal(size=(3, *SHAPE))).astype(np.float32)
    offset = rng.normal(size=3).astype(np.float32)
    samples = motion.padded_frame(*SHAPE, 2)
    motion.pad_rounded(planes, offset, samples)
    expected = np.clip(np.rint(planes - offset[:, None, None]), -32768, 32767).astype(np.int16)[:2]
    assert np.array_equal(samples, padded(expected))
    assert np.array_equal(motion.without_margin(samples), expected.transpose(1, 2, 0))


def test_magnitude_sums_without_overflow():
    planes = np.full((16, 64, 64), -32768, np.int16)
    assert motion.magnitude(padded(planes)) == 64 * 64 * 16 * 32768
