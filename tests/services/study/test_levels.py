"""Levels' entropy and code, against scipy and the reference code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from services.study.levels import level_entropy, levels_of, zero_run_bytes
from tests.codec import reference_rle

LEVELS = np.random.default_rng(5).integers(0, 8, (3, 4, 5)).astype(np.uint8)


def test_levels_are_the_reference_codes() -> None:
    tensor = np.random.default_rng(4).normal(size=(3, 4, 5)).astype(np.float32)
    levels = levels_of({"a": tensor}, 3)["a"]
    assert levels.shape == tensor.shape
    assert levels.reshape(-1).tolist() == reference_rle.quantize(tensor.reshape(-1).tolist(), 3).levels


def test_entropy_is_scipys() -> None:
    counts = np.bincount(LEVELS.reshape(-1), minlength=8)
    assert level_entropy(LEVELS, 3) == pytest.approx(scipy_entropy(counts, base=2))


def test_the_papers_code_has_the_length_of_its_codewords() -> None:
    levels = np.where(np.random.default_rng(2).random(500) < 0.8, 0, 5).astype(np.uint8)
    words = reference_rle.codewords(levels.tolist(), 3)
    assert zero_run_bytes(levels, 3) == -(-len(words) * 4 // 8)
