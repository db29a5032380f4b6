"""What the paper's code leaves in the bits, against numpy, zstandard and the reference code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zstandard
from scipy.stats import entropy as scipy_entropy

from services.study.experiments.redundancy import channel_levels, frequent_first, redundancy, sizes
from services.study.record import RANDOM
from tests.codec import reference_rle
from tests.services.study.records import StudyFactory, record


def test_each_channel_is_quantized_by_its_own_range() -> None:
    tensor = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    tensor[1] *= 100
    tensor[2] = 7.5
    levels, restored = channel_levels(tensor, 3)
    for channel in range(2):
        coded = reference_rle.quantize(tensor[channel].flatten().tolist(), 3)
        assert levels[channel].flatten().tolist() == coded.levels
        np.testing.assert_allclose(restored[channel].flatten(), reference_rle.dequantize(coded, 3), rtol=1e-5)
    assert not levels[2].any()
    np.testing.assert_array_equal(restored[2], tensor[2])


def test_the_most_frequent_level_becomes_0_and_back() -> None:
    levels = np.array([3, 3, 0, 3, 1, 2, 0, 3], np.uint8)
    found = frequent_first(levels)
    assert found.tolist() == [0, 0, 3, 0, 1, 2, 3, 0]
    assert frequent_first(np.zeros(4, np.uint8)).tolist() == [0, 0, 0, 0]


def test_sizes_are_those_of_independent_coders() -> None:
    levels = (
        np.random.default_rng(1)
        .choice(8, 400, p=[0.02, 0.05, 0.8, 0.05, 0.02, 0.02, 0.02, 0.02])
        .astype(np.uint8)
    )
    found = sizes({"a": levels}, 3, ranges=2)
    exchanged = np.array([2, 1, 0, 3, 4, 5, 6, 7])[levels]
    words = reference_rle.codewords(exchanged.tolist(), 3)
    assert found["frequent"] == 16 + 1 + -(-len(words) * 4 // 8)
    assert found["zstd"] == 16 + len(zstandard.ZstdCompressor().compress(levels.tobytes()))
    assert found["entropy"] == pytest.approx(16 + scipy_entropy(np.bincount(levels), base=2) * 400 / 8)


def test_random_weights_have_sizes_only(make_study: StudyFactory) -> None:
    study = make_study(quick=True, weights=RANDOM)
    redundancy.measure(study)
    records = study.book.of("redundancy")
    assert len(records) == 2 * 2 + 2
    assert all(one.values["scores"] == {} for one in records)
    channels = next(one for one in records if one.settings == {"ranges": "channel", "bits": 3})
    tensors = next(one for one in records if one.settings == {"ranges": "tensor", "bits": 3})
    assert channels.values["channel entropy"] <= channels.values["channel zstd"]
    assert tensors.values["entropy"] < tensors.values["rle"]
    section = redundancy.present(records)
    assert not section.claims
    assert "without calibration" in section.notes[0]


def test_measures_once(make_study: StudyFactory) -> None:
    study = make_study(quick=True)
    redundancy.measure(study)
    before = study.book.path.read_text()
    redundancy.measure(make_study(quick=True))
    assert study.book.path.read_text() == before


@pytest.mark.parametrize(
    ("feature", "verdict"), [(20, "does not agree: feature codec takes 0.20"), (95, "This agrees")]
)
def test_the_verdict_follows_the_bytes_at_equal_accuracy(feature: float, verdict: str) -> None:
    records: list[Any] = []
    for bits, score in ((2, 0.2), (4, 0.4)):
        values = {"rle": bits * 25 * 1024, "scores": {"map": score}}
        records.append(record("redundancy", {"ranges": "tensor", "bits": bits}, values))
    for quality, score, size in ((1, 0.2, feature / 2), (2, 0.4, feature)):
        values = {"feature": size * 1024, "scores": {"map": score}, "calibrated": True}
        records.append(record("redundancy", {"feature": quality}, values))
    section = redundancy.present(records)
    assert verdict in section.claims[0].verdict
