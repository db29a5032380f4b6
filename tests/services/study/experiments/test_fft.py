"""Keeping the lower frequencies, against a Fourier sum written out."""

from __future__ import annotations

import numpy as np
import pytest

from services.study.experiments.fft import ORDERS, fft_study, lower_frequencies, lower_plane_frequencies
from tests.services.study.records import StudyFactory, record

TENSOR = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_all_frequencies_give_the_tensor_back(order: str) -> None:
    np.testing.assert_allclose(lower_frequencies(TENSOR, order, 1.0), TENSOR, atol=1e-6)
    np.testing.assert_allclose(lower_plane_frequencies(TENSOR, 1.0), TENSOR, atol=1e-6)


def test_the_lower_half_is_what_a_sum_of_waves_gives() -> None:
    vector = TENSOR.transpose(1, 2, 0).reshape(-1).astype(np.float64)  # rows, columns, channels the fastest
    n, kept = vector.size, round(0.5 * (vector.size // 2 + 1))
    place = np.arange(n)
    waves = np.zeros(n)
    for k in range(kept):
        wave = np.exp(2j * np.pi * k * place / n)
        amplitude = (vector * wave.conj()).sum() / n
        waves += (amplitude * wave).real * (1 if k == 0 else 2)
    expected = waves.reshape(3, 4, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(lower_frequencies(TENSOR, "HWC", 0.5), expected, atol=1e-6)


def test_one_frequency_is_the_mean() -> None:
    np.testing.assert_allclose(
        lower_frequencies(TENSOR, "CHW", 0.01), np.full((2, 3, 4), TENSOR.mean()), atol=1e-6
    )
    planes = np.broadcast_to(TENSOR.mean(axis=(1, 2), keepdims=True), TENSOR.shape)
    np.testing.assert_allclose(lower_plane_frequencies(TENSOR, 0.01), planes, atol=1e-6)


def test_quick_measures_once(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    fft_study.measure(study)
    before = study.book.path.read_text()
    assert before.count("\n") == 1 + 3
    fft_study.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


@pytest.mark.parametrize(("best", "verdict"), [(0.38, "does not agree"), (0.2, "This agrees")])
def test_the_verdict_follows_the_best_order(best: float, verdict: str) -> None:
    scores = {("CHW", 1.0): 0.4, ("CHW", 0.5): best, ("HWC", 0.5): 0.1, ("plane", 0.5): 0.39}
    records = [record("fft", {"order": o, "share": s}, {"map": score}) for (o, s), score in scores.items()]
    section = fft_study.present(records)
    assert verdict in section.claims[0].verdict
    assert ["tiny, layer 4.m", "H W C", "50%", "0.100"] in section.tables[0].rows
