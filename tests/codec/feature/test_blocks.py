"""What an encoder decides of its blocks before it tells it."""

from __future__ import annotations

import numpy as np

from codec.feature.blocks import NEARLY_THE_SAME, choose_changes, tell_coded


def test_a_step_stays_unless_another_is_far():
    predicted = np.arange(-12, 13, dtype=np.int8)
    for old in (-12, 0, 5):
        before, changes = np.full(25, old, np.int8), np.full(25, 99, np.int8)
        choose_changes(predicted, before, changes)
        far = np.abs(predicted - old) > NEARLY_THE_SAME
        assert np.array_equal(changes, np.where(far, predicted, old))


def test_a_block_without_levels_in_any_component_keeps_its_step():
    lasts = np.array([[-1, 0, -1, -1], [-1, -1, 15, -1], [-1, -1, 3, -1]], np.int8)
    before, changes = np.array([1, 2, 3, 4], np.int8), np.array([5, 6, 7, 8], np.int8)
    coded = np.full(4, 9, np.uint8)
    tell_coded(lasts, before, changes, coded)
    assert coded.tolist() == [0, 1, 1, 0]
    assert changes.tolist() == [1, 6, 7, 4]
