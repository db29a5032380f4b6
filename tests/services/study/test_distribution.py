"""Descriptions of coefficients and differences, against numpy's histograms and sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from services.study.distribution import PROBABILITIES, describe, difference, stepped_entropy

TENSOR = np.random.default_rng(3).normal(size=(3, 4, 5)).astype(np.float32)


def test_differences_are_taken_along_rows_columns_and_channels() -> None:
    for along, (c, h, w) in {"channel": (1, 0, 0), "column": (0, 1, 0), "row": (0, 0, 1)}.items():
        found = difference(TENSOR, along)
        assert found.shape == (3 - c, 4 - h, 5 - w)
        assert found[1, 2, 3] == TENSOR[1 + c, 2 + h, 3 + w] - TENSOR[1, 2, 3]


def test_entropy_is_that_of_the_histogram() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    edges = np.arange(-10.25, 10.5, 0.5)
    counts, _ = np.histogram(values, edges)
    assert stepped_entropy(values, 0.5) == pytest.approx(scipy_entropy(counts, base=2))
    assert stepped_entropy(np.zeros(5, np.float32), 0.5) == 0
    assert stepped_entropy(values, 0.0) == 0


def test_a_tensor_is_described_by_its_own_numbers() -> None:
    values = np.array([0, 0, -1, 3, 4, -2, 0, 8], np.float32)
    found = describe(values, 1.0)
    assert (found["minimum"], found["maximum"]) == (-2, 8)
    assert found["zeros"] == 3 / 8
    assert found["negatives"] == 2 / 8
    assert found["deviation"] == pytest.approx(np.std(values), rel=1e-5)
    for probability, quantile in zip(PROBABILITIES, found["quantiles"], strict=True):
        assert quantile == pytest.approx(np.quantile(values, probability), abs=1e-4)
